"""Interactive plots of a page, as Vega-Lite specifications that Altair makes.

Colours are the page's CSS variables, so that a plot follows the dark mode and prints dark on white.
`parts.html.jinja` has the macro that places a plot, `page.html.jinja` the script that draws it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
"""A Vega-Lite specification, which is plain JSON."""
Row = Mapping[str, Any]

MAX_POINTS = 600  # of a line: about the width of a plot in pixels
_FEW = 30  # a line of at most so many points shows each as a dot
_ROW_HEIGHT = 26  # of a category, in pixels
_SERIES = 6  # colours of series in page.html.jinja
_TOP_LEGEND = {"orient": "top", "title": None, "columns": 3, "labelLimit": 220}
_CONFIG: Spec = {
    "customFormatTypes": True,
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--faint)",
        "titleColor": "var(--faint)",
        "gridColor": "var(--rule)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 150,
    },
    "axisX": {"grid": False, "tickCount": 6, "labelOverlap": "greedy", "labelFlush": True},
    "axisY": {"tickCount": 5, "labelOverlap": "greedy"},
    "legend": {"labelColor": "var(--ink)", "titleColor": "var(--faint)", "labelFontSize": 12},
    "text": {"color": "var(--ink)", "fontSize": 12},
    "rule": {"color": "var(--faint)"},
}


@dataclass(frozen=True)
class Axis:
    """A column of the rows, and how its values are shown."""

    field: str
    title: str
    """With the unit."""
    format: str = ".4~g"
    """Of values in tooltips, in d3's notation."""
    ticks: str = ",~f"
    """Of the axis's labels, in d3's notation."""
    log: bool = False
    zero: bool = False
    """Whether the axis begins at 0."""


STEPS = Axis("step", "optimizer steps", format=",")


def lines(rows: Iterable[Row], x: Axis, y: Axis, series: Sequence[str] = (), height: int = 260) -> Spec:
    """Return a plot of lines, with the value nearest to the pointer.

    Dragging moves it, the wheel with Shift zooms, a double click shows all again.

    A row whose value is not finite, or not positive on a logarithmic axis, has no place and is left out.

    Args:
        rows: with the columns of `x` and `y`, and the column `series` if there are several lines.
        x: horizontal.
        y: vertical.
        series: the names of the lines, in the order of their colours; none: there is one line.
        height: pixels.
    """
    kept = _thinned(_placed(rows, x, y), x.field, y.field)
    has_dots = any("dot" in row for row in kept)
    return _with_rows(_lines(x, y, tuple(series), height, has_dots), kept)


@cache
def _lines(x: Axis, y: Axis, series: tuple[str, ...], height: int, has_dots: bool) -> Spec:
    import altair as alt

    color: Any = alt.value("var(--series-1)")
    if series:
        color = alt.Color("series:N", scale=_colors(series), legend=alt.Legend(**_TOP_LEGEND))
    moved = alt.selection_interval(
        bind="scales", encodings=["x"], zoom="wheel![event.shiftKey]", name="moved"
    )
    fields = [x.field, "series"] if series else [x.field]
    nearest = alt.selection_point(
        nearest=True, on="pointermove", clear="pointerout", fields=fields, empty=False, name="nearest"
    )
    base = alt.Chart(alt.NamedData("rows")).encode(x=_x(x), y=_y(y), color=color)
    line = base.mark_line(clip=True, strokeWidth=1.7, strokeJoin="round").add_params(moved)
    # Vega-Lite looks a name up in the wrong row next to `nearest`, unless a function formats it.
    name = [alt.Tooltip("series:N", title="line", format="", formatType="trim")] if series else []
    shown = alt.when(nearest).then(alt.value(1)).otherwise(alt.value(0))
    hovered = base.mark_point(clip=True, filled=True, size=60)
    hovered = hovered.encode(opacity=shown, tooltip=[*name, _tooltip(x), _tooltip(y)]).add_params(
        nearest
    )
    layers = [line, hovered]
    if has_dots:
        dots = base.mark_point(clip=True, filled=True, size=30, opacity=1)
        layers.insert(1, dots.transform_filter("datum.dot"))
    return _spec(alt.layer(*layers), height)


def intervals(
    rows: Iterable[Row],
    category: Axis,
    value: Axis,
    low: str,
    high: str,
    more: tuple[Axis, ...] = (),
    has_zero: bool = True,
) -> Spec:
    """Return a plot of values with their intervals, a line for each category.

    Args:
        rows: with the columns of `category` and `value`, and the bounds. Their order is kept.
        category: vertical; texts.
        value: horizontal.
        low: the column of the lower bounds; a row may have None.
        high: that of the upper bounds.
        more: further columns that the tooltip shows.
        has_zero: whether zero is marked.
    """
    kept = [row for row in rows if _is_finite(row.get(value.field))]
    kept = [{**row, "interval": _interval(row[low], row[high])} for row in kept]
    names = tuple(row[category.field] for row in kept)
    bounds = None
    if any(row[low] is not None for row in kept):
        bounds = (low, high)
    return _with_rows(_intervals(category, names, value, bounds, more, has_zero), kept)


@cache
def _intervals(
    category: Axis,
    names: tuple[str, ...],
    value: Axis,
    bounds: tuple[str, str] | None,
    more: tuple[Axis, ...],
    has_zero: bool,
) -> Spec:
    import altair as alt

    base = alt.Chart(alt.NamedData("rows")).encode(y=_category(category, names))
    tooltip = [
        alt.Tooltip(f"{category.field}:N", title=category.title),
        _tooltip(value),
        alt.Tooltip("interval:N", title="interval"),
        *map(_tooltip, more),
    ]
    dots = base.mark_point(filled=True, size=70, color="var(--series-1)", opacity=1)
    layers = [dots.encode(x=_x(value), tooltip=tooltip)]
    if bounds is not None:
        low = replace(value, field=bounds[0])
        spans = base.mark_rule(color="var(--series-1)", strokeWidth=2)
        layers.insert(0, spans.encode(x=_x(low), x2=f"{bounds[1]}:Q", tooltip=tooltip))
    if has_zero:
        marked = alt.Chart(alt.NamedData("rows")).mark_rule(strokeDash=[3, 3])
        layers.insert(0, marked.encode(x=alt.datum(0)))
    return _spec(alt.layer(*layers), _ROW_HEIGHT * len(names))


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "unknown"
    return f"{low:.4g} to {high:.4g}"


def bars(rows: Iterable[Row], category: Axis, value: Axis) -> Spec:
    """Return a plot of horizontal bars, one for each category, in the order of the rows."""
    kept = [row for row in rows if _is_finite(row.get(value.field))]
    names = tuple(row[category.field] for row in kept)
    return _with_rows(_bars(category, names, replace(value, zero=True)), kept)


@cache
def _bars(category: Axis, names: tuple[str, ...], value: Axis) -> Spec:
    import altair as alt

    tooltip = [alt.Tooltip(f"{category.field}:N", title=category.title), _tooltip(value)]
    base = alt.Chart(alt.NamedData("rows")).encode(
        y=_category(category, names), x=_x(value), tooltip=tooltip
    )
    return _spec(base.mark_bar(color="var(--series-1)", opacity=1), _ROW_HEIGHT * len(names))


def histogram(rows: Iterable[Row], value: Axis, count: Axis, height: int = 200) -> Spec:
    """Return a plot of how often values occur.

    Args:
        rows: one for each range of values, with its bounds in the columns `low` and `high`, and the
            column of `count`.
        value: horizontal; only its title and formats are used.
        count: vertical.
        height: pixels.
    """
    kept = [row for row in rows if _is_finite(row.get(count.field))]
    return _with_rows(_histogram(value, replace(count, zero=True), height), kept)


@cache
def _histogram(value: Axis, count: Axis, height: int) -> Spec:
    import altair as alt

    low = replace(value, field="low")
    tooltip = [
        _tooltip(replace(low, title=f"{value.title}, from")),
        _tooltip(replace(low, field="high", title="to")),
        _tooltip(count),
    ]
    base = alt.Chart(alt.NamedData("rows")).encode(x=_x(low), x2="high:Q", y=_y(count), tooltip=tooltip)
    base = base.encode(y2=alt.datum(0))
    return _spec(base.mark_bar(color="var(--series-1)", opacity=1), height)


def scatter(
    rows: Iterable[Row], x: Axis, y: Axis, more: tuple[Axis, ...] = (), height: int = 260
) -> Spec:
    """Return a plot of points; `more` are further columns that the tooltip shows."""
    return _with_rows(_scatter(x, y, more, height), _placed(rows, x, y))


@cache
def _scatter(x: Axis, y: Axis, more: tuple[Axis, ...], height: int) -> Spec:
    import altair as alt

    tooltip = [_tooltip(x), _tooltip(y), *map(_tooltip, more)]
    base = alt.Chart(alt.NamedData("rows")).encode(x=_x(x), y=_y(y), tooltip=tooltip)
    return _spec(base.mark_point(filled=True, size=45, color="var(--series-1)", opacity=0.6), height)


def _spec(chart: "alt.TopLevelMixin", height: int) -> Spec:
    """Return the specification of a chart, which is as wide as the element that it is drawn in."""
    import altair as alt

    autosize = alt.AutoSizeParams(type="fit-x", contains="padding")
    spec = chart.properties(width="container", height=height, autosize=autosize).to_dict(validate=False)
    return {**spec, "config": _CONFIG}


def _with_rows(spec: Spec, rows: Sequence[Row]) -> Spec:
    """Return a specification with its data. Altair would copy each value, which takes far longer."""
    return {**spec, "datasets": {"rows": rows}}


def _x(axis: Axis) -> "alt.X":
    import altair as alt

    return alt.X(f"{axis.field}:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis))


def _y(axis: Axis) -> "alt.Y":
    import altair as alt

    return alt.Y(f"{axis.field}:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis))


def _ticks(axis: Axis) -> "alt.Axis":
    import altair as alt

    # A logarithmic axis leaves some labels empty; d3 would write zero as 0e+0.
    label = f"datum.value && datum.label ? format(datum.value, '{axis.ticks}') : datum.label && '0'"
    return alt.Axis(labelExpr=label)


def _category(axis: Axis, names: tuple[str, ...]) -> "alt.Y":
    import altair as alt

    return alt.Y(
        f"{axis.field}:N",
        title=None,
        sort=list(names),
        axis=alt.Axis(labelOverlap=False, labelLimit=190),
    )


def _scale(axis: Axis) -> "alt.Scale":
    import altair as alt

    if axis.log:
        return alt.Scale(type="log", nice=False)
    return alt.Scale(zero=axis.zero, nice=True)


def _colors(series: Sequence[str]) -> "alt.Scale":
    import altair as alt

    colors = [f"var(--series-{1 + number % _SERIES})" for number in range(len(series))]
    return alt.Scale(domain=list(series), range=colors)


def _tooltip(axis: Axis) -> "alt.Tooltip":
    import altair as alt

    return alt.Tooltip(f"{axis.field}:Q", title=axis.title, format=axis.format)


def _placed(rows: Iterable[Row], x: Axis, y: Axis) -> list[Row]:
    """Return the rows that have a place on both axes."""
    return [row for row in rows if all(_has_place(row.get(axis.field), axis) for axis in (x, y))]


def _has_place(value: Any, axis: Axis) -> bool:
    return _is_finite(value) and (value > 0 or not axis.log)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _thinned(rows: Sequence[Row], x: str, y: str) -> list[Row]:
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
