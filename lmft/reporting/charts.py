"""Interactive plots of a page, as Vega-Lite specifications that Altair makes.

Colours are the page's CSS variables, so that a plot follows the dark mode and prints dark on white.
`parts.html.jinja` has the macro that places a plot, `page.html.jinja` the script that draws it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from lmft.reporting.axes import Axis, categories, colors_of, tooltip_of, x_of, y_of
from lmft.reporting.plotted_rows import Row, is_finite, placed, thinned

if TYPE_CHECKING:
    import altair as alt

Spec = dict[str, Any]
"""A Vega-Lite specification, which is plain JSON."""

_ROW_HEIGHT = 26  # of a category, in pixels
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


def lines(rows: Iterable[Row], x: Axis, y: Axis, series: Sequence[str] = (), height: int = 260) -> Spec:
    """Return a plot of lines, with the value nearest to the pointer.

    Dragging moves it, Shift and the mouse wheel zoom, a double click resets it.

    A row whose value is not finite, or not positive on a logarithmic axis, has no place and is left out.

    Args:
        rows: with the columns of `x` and `y`, and the column `series` if there are several lines.
        x: horizontal.
        y: vertical.
        series: the names of the lines, in the order of their colours; none: there is one line.
        height: pixels.
    """
    kept = thinned(placed(rows, x, y), x.field, y.field)
    has_dots = any("dot" in row for row in kept)
    return _with_rows(_lines(x, y, tuple(series), height, has_dots), kept)


@cache
def _lines(x: Axis, y: Axis, series: tuple[str, ...], height: int, has_dots: bool) -> Spec:
    import altair as alt

    color: Any = alt.value("var(--series-1)")
    if series:
        color = alt.Color("series:N", scale=colors_of(series), legend=alt.Legend(**_TOP_LEGEND))
    moved = alt.selection_interval(
        bind="scales", encodings=["x"], zoom="wheel![event.shiftKey]", name="moved"
    )
    fields = [x.field, "series"] if series else [x.field]
    nearest = alt.selection_point(
        nearest=True, on="pointermove", clear="pointerout", fields=fields, empty=False, name="nearest"
    )
    base = alt.Chart(alt.NamedData("rows")).encode(x=x_of(x), y=y_of(y), color=color)
    line = base.mark_line(clip=True, strokeWidth=1.7, strokeJoin="round").add_params(moved)
    # Vega-Lite looks a name up in the wrong row next to `nearest`, unless a function formats it.
    name = [alt.Tooltip("series:N", title="line", format="", formatType="trim")] if series else []
    shown = alt.when(nearest).then(alt.value(1)).otherwise(alt.value(0))
    hovered = base.mark_point(clip=True, filled=True, size=60)
    hovered = hovered.encode(opacity=shown, tooltip=[*name, tooltip_of(x), tooltip_of(y)]).add_params(
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
    kept = [row for row in rows if is_finite(row.get(value.field))]
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

    base = alt.Chart(alt.NamedData("rows")).encode(y=categories(category, names))
    tooltip = [
        alt.Tooltip(f"{category.field}:N", title=category.title),
        tooltip_of(value),
        alt.Tooltip("interval:N", title="interval"),
        *map(tooltip_of, more),
    ]
    dots = base.mark_point(filled=True, size=70, color="var(--series-1)", opacity=1)
    layers = [dots.encode(x=x_of(value), tooltip=tooltip)]
    if bounds is not None:
        low = replace(value, field=bounds[0])
        spans = base.mark_rule(color="var(--series-1)", strokeWidth=2)
        layers.insert(0, spans.encode(x=x_of(low), x2=f"{bounds[1]}:Q", tooltip=tooltip))
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
    kept = [row for row in rows if is_finite(row.get(value.field))]
    names = tuple(row[category.field] for row in kept)
    return _with_rows(_bars(category, names, replace(value, zero=True)), kept)


@cache
def _bars(category: Axis, names: tuple[str, ...], value: Axis) -> Spec:
    import altair as alt

    tooltip = [alt.Tooltip(f"{category.field}:N", title=category.title), tooltip_of(value)]
    base = alt.Chart(alt.NamedData("rows")).encode(
        y=categories(category, names), x=x_of(value), tooltip=tooltip
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
    kept = [row for row in rows if is_finite(row.get(count.field))]
    return _with_rows(_histogram(value, replace(count, zero=True), height), kept)


@cache
def _histogram(value: Axis, count: Axis, height: int) -> Spec:
    import altair as alt

    low = replace(value, field="low")
    tooltip = [
        tooltip_of(replace(low, title=f"{value.title}, from")),
        tooltip_of(replace(low, field="high", title="to")),
        tooltip_of(count),
    ]
    base = alt.Chart(alt.NamedData("rows")).encode(
        x=x_of(low), x2="high:Q", y=y_of(count), tooltip=tooltip
    )
    base = base.encode(y2=alt.datum(0))
    return _spec(base.mark_bar(color="var(--series-1)", opacity=1), height)


def scatter(
    rows: Iterable[Row], x: Axis, y: Axis, more: tuple[Axis, ...] = (), height: int = 260
) -> Spec:
    """Return a plot of points; `more` are further columns that the tooltip shows."""
    return _with_rows(_scatter(x, y, more, height), placed(rows, x, y))


@cache
def _scatter(x: Axis, y: Axis, more: tuple[Axis, ...], height: int) -> Spec:
    import altair as alt

    tooltip = [tooltip_of(x), tooltip_of(y), *map(tooltip_of, more)]
    base = alt.Chart(alt.NamedData("rows")).encode(x=x_of(x), y=y_of(y), tooltip=tooltip)
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
