"""What a run tells its user: tables, the report, the model card."""
