"""Which example comes when, and its random numbers."""
