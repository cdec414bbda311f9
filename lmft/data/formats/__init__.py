"""What a row is (a text, a chat, a pair) and its tokens."""
