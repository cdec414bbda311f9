"""Examples under an objective, as plain data."""

from lmft.inspection.batches import Viewer, first_example
from lmft.inspection.choice import Choice, chosen
from lmft.inspection.provenance import add_rows
from lmft.inspection.statistics import statistics

__all__ = ["Choice", "Viewer", "add_rows", "chosen", "first_example", "statistics"]
