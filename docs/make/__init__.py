"""What the documentation generates: pages of reference, tables of figures, pictures."""
