"""Examples under an objective, as plain data."""

from lmft.inspection.batches import Viewer, first_example
from lmft.inspection.choice import Choice, chosen
from lmft.inspection.statistics import statistics

__all__ = ["Choice", "Viewer", "chosen", "first_example", "statistics"]
