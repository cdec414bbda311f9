"""The plot of a learning rate range test."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmft.reporting.curve import BOTTOM, LEFT, RIGHT, TOP, WIDTH, ticks
from lmft.reporting.templates import fill

_HEIGHT = 320
_FRAME = {
    "label": "nats per target",
    "x_label": "learning rate",
    "width": WIDTH,
    "height": _HEIGHT,
    "left": LEFT,
    "right": WIDTH - RIGHT,
    "top": TOP,
    "bottom": _HEIGHT - BOTTOM,
}


def write_range_plot(
    path: Path,
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggested: float | None,
) -> None:
    """Write the losses over the learning rate, on a logarithmic axis, as SVG.

    Args:
        path: the .svg file.
        rates: rising.
        losses: nats per target.
        smoothed: the same, smoothed.
        suggested: the rate that is marked; None: none is.
    """
    points = _finite(rates, losses)
    means = _finite(rates, smoothed)
    first = math.log10(rates[0])
    span = math.log10(rates[-1]) - first or 1.0
    y_ticks = ticks(min(loss for _, loss in points), max(loss for _, loss in points), 5)

    def x_of(rate: float) -> float:
        return round(LEFT + (math.log10(rate) - first) / span * (WIDTH - LEFT - RIGHT), 1)

    def y_of(loss: float) -> float:
        share = (loss - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return round(TOP + (1 - share) * (_HEIGHT - TOP - BOTTOM), 1)

    def line(name: str, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
        return {"name": name, "points": [(x_of(rate), y_of(loss)) for rate, loss in pairs], "dots": []}

    lines = [line("train", points), line("val", means)]
    if suggested is not None:
        nearest = min(means, key=lambda pair: abs(math.log(pair[0] / suggested)))
        lines[1]["dots"] = [(x_of(nearest[0]), y_of(nearest[1]), f"suggested: {suggested:g}")]
    decades = range(math.ceil(first - 1e-9), math.floor(first + span + 1e-9) + 1)
    plot = {
        **_FRAME,
        "x_ticks": [(x_of(10.0**decade), f"1e{decade}") for decade in decades],
        "y_ticks": [(y_of(value), f"{value:g}") for value in y_ticks],
        "lines": lines,
    }
    names = {"train": "each step", "val": "smoothed"}
    path.write_text(fill("curve.svg.jinja", {}, plot=plot, names=names), encoding="utf-8")


def _finite(rates: Sequence[float], losses: Sequence[float]) -> list[tuple[float, float]]:
    return [pair for pair in zip(rates, losses, strict=True) if math.isfinite(pair[1])]
