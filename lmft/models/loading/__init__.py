"""Load or build a model, its config and its tokenizer."""
