"""Checks before a training: what it will need, and likely mistakes."""

from lmft.preflight.finding import Finding

__all__ = ["Finding"]
