"""Chats: rows, chat templates, and tokens with flags for answers."""
