"""Files, signals and the Hugging Face hub."""
