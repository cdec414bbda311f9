"""Documents that are left out: copies, near copies, and what shares text with validation."""
