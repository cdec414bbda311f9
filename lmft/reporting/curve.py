"""The curve beside a model card, as the coordinates of an SVG."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Point = tuple[float, float]

MAX_POINTS = 4000  # of a line; more would be finer than a screen's pixels
# Size of a plot, and the margins where its axes are labelled.
WIDTH = 760
LEFT = 80
RIGHT = 16
TOP = 12
BOTTOM = 44


def loss_plot(rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the plot of training and validation loss; None if there are none.

    Args:
        rows: rows of metrics.csv: numbers or their text; empty or None if absent.
        metrics: content of metrics.json.
    """
    train_loss = _points(rows, "train/loss")
    val_loss = _points(rows, "val/loss")
    if metrics.get("before") and not any(step == 0 for step, _ in val_loss):
        val_loss = [*_finite([(0.0, metrics["before"]["loss"])]), *val_loss]
    return line_plot({"train": train_loss, "val": val_loss}, "nats per target", height=300)


def line_plot(
    series: Mapping[str, Sequence[Point]], label: str, height: int, low: float | None = None
) -> dict[str, Any] | None:
    """Return the coordinates of a plot over optimizer steps; None if no series has a point.

    Args:
        series: {name: points (step, value)}; the name is the line's CSS class. Each point of `val`,
            which has few, also gets a dot.
        label: what the y axis shows.
        height: pixels.
        low: where the y axis begins; None: at the lowest value.
    """
    drawn = {name: _thinned(points) for name, points in series.items() if points}
    if not drawn:
        return None
    last_step = max(step for points in drawn.values() for step, _ in points)
    values = [value for points in drawn.values() for _, value in points]
    if low is None:
        low = min(values)
    num_y_ticks = 5 if height > 200 else 3
    y_ticks = ticks(low, max(values), num_y_ticks)
    scale = _Scale(last_step, y_ticks[0], y_ticks[-1], height)
    x_ticks = [step for step in ticks(0, last_step, 6) if step <= (last_step or 1) and step.is_integer()]
    return {
        "label": label,
        "x_label": "optimizer steps",
        "width": WIDTH,
        "height": height,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": height - BOTTOM,
        "x_ticks": [(scale.x(step), _tick_label(step)) for step in x_ticks],
        "y_ticks": [(scale.y(value), _tick_label(value)) for value in y_ticks],
        "lines": [_line(name, points, scale) for name, points in drawn.items()],
    }


@dataclass(frozen=True)
class _Scale:
    """The place of steps and values in a plot, in pixels."""

    last_step: float
    low: float
    high: float
    height: int

    def x(self, step: float) -> float:
        """Return the distance from the left edge."""
        return round(LEFT + step / (self.last_step or 1) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """Return the distance from the upper edge."""
        share = (value - self.low) / (self.high - self.low)
        return round(TOP + (1 - share) * (self.height - TOP - BOTTOM), 1)


def _line(name: str, points: Sequence[Point], scale: _Scale) -> dict[str, Any]:
    """Return a line's points, and the dots on it with their titles."""
    places = [(scale.x(step), scale.y(value)) for step, value in points]
    dots = []
    if name == "val" or len(points) == 1:
        titles = [f"step {step:,.0f}: {value:.5g}" for step, value in points]
        dots = [(x, y, title) for (x, y), title in zip(places, titles, strict=True)]
    return {"name": name, "points": places, "dots": dots}


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return about that many round numbers, from at most `low` to at least `high`.

    They are 1, 2 or 5 times a power of ten apart.
    """
    if low == high:
        low -= (abs(low) or 1) / 10
        high += (abs(high) or 1) / 10
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    apart = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first = math.floor(low / apart + 1e-9)
    last = math.ceil(high / apart - 1e-9)
    return [float(f"{index * apart:.12g}") for index in range(first, last + 1)]


def _points(rows: Iterable[Mapping[str, Any]], column: str) -> list[Point]:
    """Return the points (step, value) of a column of metrics.csv."""
    points = []
    for row in rows:
        step = row.get("step")
        value = row.get(column)
        if step not in ("", None) and value not in ("", None):
            points.append((float(step), float(value)))
    return _finite(points)


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(step, value) for step, value in points if math.isfinite(value)]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    return points[:: math.ceil(len(points) / MAX_POINTS)]


def _tick_label(value: float) -> str:
    """Return a tick's label: `2.5M`, `12,500`, `0.25`, `2e-5`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}".replace("e-0", "e-")
