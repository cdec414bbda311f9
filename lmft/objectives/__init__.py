"""What is hidden and what is predicted: one file an objective."""
