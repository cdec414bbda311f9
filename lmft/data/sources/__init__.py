"""Rows of text from files, folders and the hub."""
