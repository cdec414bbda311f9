"""The order of the examples, and their random numbers."""
