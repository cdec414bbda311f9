"""A file per suite; each has `run(session)`."""
