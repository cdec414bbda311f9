"""The way from text to batches.

sources/    rows of files, folders and hub data sets, cleaned
formats/    rows to token ids and flags: texts, chats, pairs
store.py    token ids of all documents, on disk
examples/   documents cut into blocks, lines or packs
schedule/   order and random numbers of the examples
loading.py, datamodule.py: all of these put together; and the DataLoaders
"""
