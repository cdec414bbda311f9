"""Losses broken down by document, token, frequency, position and length, before and after training."""
