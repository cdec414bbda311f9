"""tune.html: the range test of learning rates and the timed micro-batches, on one page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmft.reporting.axes import Axis
from lmft.reporting.charts import lines
from lmft.reporting.page import fill_page
from lmft.reporting.tables import Table

_RATE = Axis("rate", "learning rate", format=".3~g", ticks=".0e", log=True)
_LOSS = Axis("loss", "nats per target")


def tune_page(
    title: str, content: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], sizes: Table
) -> str:
    """Return the page.

    Args:
        title: what was tuned.
        content: that of tune.json.
        tried: of each step of the range test `lr`, `loss` and `smoothed`; none without a range test.
        sizes: the timed micro-batches.
    """
    suggested = (content.get("lr") or {}).get("suggested")
    charts = {}
    if tried:
        charts["lr"] = lines(_points(tried, suggested), _RATE, _LOSS, _names(suggested), height=320)
    return fill_page("tune.html.jinja", title, charts, {}, content=content, sizes=sizes)


def _names(suggested: float | None) -> list[str]:
    names = ["each step", "smoothed"]
    return names if suggested is None else [*names, f"suggested: {suggested:g}"]


def _points(tried: Sequence[Mapping[str, Any]], suggested: float | None) -> list[dict[str, Any]]:
    """Return the points of both lines, and the one of the suggested rate on the smoothed line."""
    columns = {"each step": "loss", "smoothed": "smoothed"}
    points = [
        {"rate": row["lr"], "loss": row[column], "series": name}
        for name, column in columns.items()
        for row in tried
    ]
    if suggested is not None:
        nearest = min(tried, key=lambda row: abs(math.log(row["lr"] / suggested)))
        point = {"rate": nearest["lr"], "loss": nearest["smoothed"]}
        points.append({**point, "series": _names(suggested)[-1]})
    return points
