"""Finding: something that is likely to be a mistake, and what to change."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A warning before a training."""

    name: str
    """Of the check."""
    text: str
    """What was found, with its figure; one line."""
    fix: str
    """What to change; one line."""
