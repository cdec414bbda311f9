"""What is found before a training: what it will need, and what is likely to be a mistake."""

from lmft.preflight.finding import Finding

__all__ = ["Finding"]
