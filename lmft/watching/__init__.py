"""Serve the reports of runs on this computer."""
