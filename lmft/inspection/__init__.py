"""Examples under an objective, as plain data."""

from lmft.inspection.batches import Viewer, first_example
from lmft.inspection.choice import Choice, chosen
from lmft.inspection.provenance import ReadDocument, add_rows, read_documents
from lmft.inspection.statistics import statistics

__all__ = [
    "Choice",
    "ReadDocument",
    "Viewer",
    "add_rows",
    "chosen",
    "first_example",
    "read_documents",
    "statistics",
]
