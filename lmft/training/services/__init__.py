"""Services of experiment tracking: a file for each, and which one a logger belongs to."""
