"""Rows of text, read from files, folders and the hub."""
