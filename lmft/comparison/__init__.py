"""Read the folders of several runs, and rank them."""
