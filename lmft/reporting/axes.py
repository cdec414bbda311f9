"""The axes, colours and tooltips of plots, as Altair writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import altair as alt

_SERIES = 6  # colours of series in page.html.jinja


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


def x_of(axis: Axis) -> "alt.X":
    """Return the horizontal encoding of a column of numbers."""
    import altair as alt

    return alt.X(f"{axis.field}:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis))


def y_of(axis: Axis) -> "alt.Y":
    """Return the vertical encoding of a column of numbers."""
    import altair as alt

    return alt.Y(f"{axis.field}:Q", title=axis.title, scale=_scale(axis), axis=_ticks(axis))


def _ticks(axis: Axis) -> "alt.Axis":
    import altair as alt

    # A logarithmic axis leaves some labels empty; d3 would write zero as 0e+0.
    label = f"datum.value && datum.label ? format(datum.value, '{axis.ticks}') : datum.label && '0'"
    return alt.Axis(labelExpr=label)


def categories(axis: Axis, names: tuple[str, ...]) -> "alt.Y":
    """Return the vertical encoding of a column of texts, in the order of `names`."""
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


def colors_of(series: Sequence[str]) -> "alt.Scale":
    """Return the colour of each series: variables of the page, from the first on."""
    import altair as alt

    colors = [f"var(--series-{1 + number % _SERIES})" for number in range(len(series))]
    return alt.Scale(domain=list(series), range=colors)


def tooltip_of(axis: Axis) -> "alt.Tooltip":
    """Return how a tooltip shows a column of numbers."""
    import altair as alt

    return alt.Tooltip(f"{axis.field}:Q", title=axis.title, format=axis.format)
