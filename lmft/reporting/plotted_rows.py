"""The rows of a plot: those that have a place on its axes, and few enough to be drawn."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lmft.reporting.axes import Axis

Row = Mapping[str, Any]

MAX_POINTS = 600  # of a line: about the width of a plot in pixels
_FEW = 30  # a line of at most so many points shows each as a dot


def placed(rows: Iterable[Row], x: Axis, y: Axis) -> list[Row]:
    """Return the rows that have a place on both axes."""
    return [row for row in rows if all(_has_place(row.get(axis.field), axis) for axis in (x, y))]


def _has_place(value: Any, axis: Axis) -> bool:
    return is_finite(value) and (value > 0 or not axis.log)


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def thinned(rows: Sequence[Row], x: str, y: str) -> list[Row]:
    """Return at most about `MAX_POINTS` rows of each series, with the lowest and the highest values.

    So a spike of a single step stays. The rows of a series that has few get the mark `dot`.
    """
    by_series: dict[Any, list[Row]] = {}
    for row in rows:
        by_series.setdefault(row.get("series"), []).append(row)
    kept: list[Row] = []
    for own in by_series.values():
        own.sort(key=lambda row: row[x])
        if len(own) <= _FEW:
            kept += [{**row, "dot": True} for row in own]
        elif len(own) <= MAX_POINTS:
            kept += own
        else:
            kept += _extremes(own, y)
    return kept


def _extremes(rows: Sequence[Row], y: str) -> list[Row]:
    """Return the lowest and the highest of each part of the rows, in their order, and the last."""
    size = math.ceil(2 * len(rows) / MAX_POINTS)
    kept = set()
    for start in range(0, len(rows), size):
        numbers = range(start, min(start + size, len(rows)))
        kept |= {min(numbers, key=lambda number: rows[number][y])}
        kept |= {max(numbers, key=lambda number: rows[number][y])}
    return [rows[number] for number in sorted({*kept, len(rows) - 1})]
