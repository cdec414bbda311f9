"""The plots of a run over its optimizer steps, from the rows of metrics.csv."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmft.reporting.axes import STEPS, Axis
from lmft.reporting.charts import Spec, lines

Rows = Sequence[Mapping[str, float]]
_SMALL = 180  # height in pixels
_LOG_FROM = 30  # a quantity whose largest value is that many times its smallest gets a logarithmic axis
_TRAINING = "training"
_VALIDATION = "validation"


def progress_plots(rows: Rows, before: float | None) -> dict[str, Spec]:
    """Return heading → plot, without those that would be empty.

    Args:
        rows: of metrics.csv, without empty cells.
        before: the validation loss before training, if it is not among the rows.
    """
    loss = [*_series(rows, "train/loss", _TRAINING), *_series(rows, "val/loss", _VALIDATION)]
    if before is not None and not any(row["step"] == 0 and "val/loss" in row for row in rows):
        loss.append({"step": 0, "value": before, "series": _VALIDATION})
    norms = _series(rows, "train/grad_norm")
    accuracy = _series(rows, "val/accuracy")
    plots = {
        "Loss": _plot(loss, Axis("value", "nats per target"), height=300),
        "Validation loss by text": _plot(_by_text(rows), Axis("value", "nats per target")),
        "Validation accuracy": _plot(accuracy, Axis("value", "of the targets", ".2%", "~%")),
        "Gradient norm": _plot(norms, Axis("value", "before clipping", log=_spans_decades(norms))),
        "Learning rate": _plot(_rates(rows), Axis("value", "learning rate", ticks="~e", zero=True)),
        "Speed": _plot(
            _series(rows, "tokens_per_second"), Axis("value", "tokens/s", ",.0f", ",~f", zero=True)
        ),
        "Memory": _plot(_series(rows, "memory_gb"), Axis("value", "GB", zero=True)),
    }
    return {heading: plot for heading, plot in plots.items() if plot is not None}


def _plot(rows: Sequence[Mapping[str, Any]], axis: Axis, height: int = _SMALL) -> Spec | None:
    """Return the plot of these rows, with a line for each of their series; None if there is no row."""
    finite = [row for row in rows if math.isfinite(row["value"])]
    if not finite:
        return None
    names = tuple(dict.fromkeys(row["series"] for row in finite))
    return lines(finite, STEPS, axis, names if names != ("",) else (), height)


def _series(rows: Rows, column: str, name: str = "") -> list[dict[str, Any]]:
    return [{"step": row["step"], "value": row[column], "series": name} for row in rows if column in row]


def _by_text(rows: Rows) -> list[dict[str, Any]]:
    """Return the losses of named validation texts, whose columns are `val/NAME/loss`."""
    columns = _columns(rows, "val/", "/loss")
    return [point for column, name in columns.items() for point in _series(rows, column, name)]


def _rates(rows: Rows) -> list[dict[str, Any]]:
    """Return the learning rates: `lr` of the first group of weights, `lr/NAME` of others."""
    others = _columns(rows, "lr/", "")
    first = _series(rows, "lr", "first group" if others else "")
    return [*first, *(point for column, name in others.items() for point in _series(rows, column, name))]


def _columns(rows: Rows, begin: str, end: str) -> dict[str, str]:
    """Return column → name of the columns that are a name between a beginning and an end."""
    columns = dict.fromkeys(column for row in rows for column in row)
    return {
        column: column.removeprefix(begin).removesuffix(end)
        for column in columns
        if column.startswith(begin) and column.endswith(end) and len(column) > len(begin) + len(end)
    }


def _spans_decades(points: Sequence[Mapping[str, Any]]) -> bool:
    values = [row["value"] for row in points if math.isfinite(row["value"]) and row["value"] > 0]
    return bool(values) and max(values) / min(values) >= _LOG_FROM
