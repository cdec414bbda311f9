"""Formats of rows (texts, chats, pairs), and their tokens."""
