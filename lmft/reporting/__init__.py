"""Output for the user of a run: tables, the report, the model card."""
