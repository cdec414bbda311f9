"""Checks of a training on the user's own model and data, each against an independent reference."""
