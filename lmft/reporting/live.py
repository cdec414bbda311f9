"""The block that a training draws on the terminal: a bar, the losses, and the other numbers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from lmft.reporting.tables import duration
from lmft.reporting.terminal import beside, cropped

SPARKLINE_WIDTH = 24  # columns, if the line has room
_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP = "   "  # between numbers
_WIDEST_BAR = 40
_NARROWEST_BAR = 5
_NARROWEST_LABEL = 10


@dataclass(frozen=True)
class Position:
    """Holds how far a training is."""

    label: str
    """`epoch 2/3`, or `validating`."""
    done: int
    """Units of work: steps or batches."""
    total: int | None
    """None: unknown."""
    left: str = ""
    """The time to the end: `2:31 left`."""
    unit: str = ""
    """What is counted; empty: steps, or what the label says."""

    @property
    def counted(self) -> str:
        """Return what is done of how much: `840/1,173`."""
        text = f"{self.done:,}"
        if self.total is not None:
            text += f"/{self.total:,}"
        return f"{text} {self.unit}".rstrip()


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """Return numbers as a row of blocks, whose heights go from the least to the largest.

    More numbers than columns are averaged in groups of neighbours. A number that is not finite is shown
    as `×`; if all are equal, they have half the height.
    """
    columns = _averaged(values, width)
    finite = [value for value in columns if math.isfinite(value)]
    if not finite:
        return "×" * len(columns)
    lowest = min(finite)
    half_extent = max(finite) / 2 - lowest / 2  # a difference can be too large for a float
    return "".join(_block(value, lowest, half_extent) for value in columns)


def _averaged(values: Sequence[float], width: int) -> list[float]:
    """Return at most `width` means of neighbouring values; one that is not finite makes its mean NaN."""
    if len(values) <= width:
        return list(values)
    bounds = [len(values) * column // width for column in range(width + 1)]
    return [sum(values[start:stop]) / (stop - start) for start, stop in itertools.pairwise(bounds)]


def _block(value: float, lowest: float, half_extent: float) -> str:
    if not math.isfinite(value):
        return "×"
    height = 0.5
    if half_extent > 0:
        height = (value / 2 - lowest / 2) / half_extent
    return _BLOCKS[round(height * (len(_BLOCKS) - 1))]


def bar_line(position: Position, width: int, is_ascii: bool = False) -> Text:
    """Return the line with the bar; the bar takes the room that is left, if there is any."""
    parts = [position.label, f" {position.counted}"]
    if position.left:
        parts.append(f"  {position.left}")
    rest_width = sum(map(cell_len, parts[1:]))
    # A long label, such as a path, leaves room for the numbers.
    parts[0] = cropped(parts[0], max(_NARROWEST_LABEL, width - rest_width - _NARROWEST_BAR - 1))
    room = width - cell_len(parts[0]) - rest_width - 1
    if position.total is None or room < _NARROWEST_BAR:
        return Text(cropped("".join(parts), width), no_wrap=True)
    room = min(room, _WIDEST_BAR)
    num_full = room
    if position.total:
        num_full = min(room, room * position.done // position.total)
    full = "━"
    rest = "━"
    if is_ascii:
        full = "#"
        rest = "-"
    return Text.assemble(
        (parts[0], "bold"),
        " ",
        (full * num_full, "green"),
        (rest * (room - num_full), "bright_black"),
        parts[1],
        ("".join(parts[2:]), "cyan"),
        no_wrap=True,
    )


def flowed(parts: Sequence[str], width: int) -> Text:
    """Return texts side by side, in as many lines as they need."""
    lines = [cropped(line, width) for line in beside(parts, _GAP, width)]
    return Text("\n".join(lines), no_wrap=True)


def validation_line(position: Position, parts: Sequence[str], seconds: float) -> str:
    """Return the line that stays after an epoch or a validation."""
    where = [f"step {position.counted}", position.label]
    return "  ".join([*where, *parts, duration(seconds)])
