"""Run folders: lock, checkpoints, resuming, log."""
