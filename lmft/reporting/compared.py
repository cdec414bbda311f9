"""Print the ranked table of several runs."""

from collections.abc import Mapping, Sequence

from lmft.reporting.terminal import show, table_page, terminal

# Columns that only the files have, unless they rank: then they stand before the loss.
_OF_FILES = ("bits_per_byte", "perplexity", "accuracy", "runs")


def print_comparison(rows: Sequence[Mapping[str, str]], notes: Sequence[str], limit: int) -> None:
    """Print the first rows of the ranked table, and notes below it.

    Args:
        rows: column -> cell, the best first, with the same columns in each.
        notes: lines.
        limit: rows that are printed.
    """
    heads = list(rows[0])
    place_of_loss = heads.index("loss") if "loss" in heads else 0
    columns = [
        head for place, head in enumerate(heads) if head not in _OF_FILES or place < place_of_loss
    ]
    if len(rows) > limit:
        notes = [f"settings that are in the files alone: {len(rows) - limit}", *notes]
    cells = [tuple(row[column] for column in columns) for row in rows[:limit]]
    title = "validation, loss in nats per target: mean±standard deviation"
    show(*table_page(title, tuple(columns), cells, notes, terminal().width))
