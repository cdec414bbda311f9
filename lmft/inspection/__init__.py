"""Examples under an objective, as plain data."""

from lmft.inspection.batches import Viewer, first_example

__all__ = ["Viewer", "first_example"]
