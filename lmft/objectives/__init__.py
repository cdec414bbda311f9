"""Training objectives: each decides which tokens are hidden and which are predicted."""
