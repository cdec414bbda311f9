"""Examples cut from the token store."""
