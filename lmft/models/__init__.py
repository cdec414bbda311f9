"""Hugging Face models: load, adapt, freeze, export; logits and loss at the targets only."""
