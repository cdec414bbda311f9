"""Sweeps that search: a sweeper for Hydra on Optuna."""
