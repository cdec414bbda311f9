"""What a command shows: on the terminal, and as plain text in the train.log of the run that shows it."""

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Row = tuple[str, ...]

NARROWEST = 40  # columns; narrower terminals break lines by themselves
_NARROWEST_LABEL = 16  # columns that the first column of a table keeps at least, if it needs them

# Only the log of a run listens here: what goes this way is on the terminal already.
_log = logging.getLogger("lmft.terminal")
_log.propagate = False
_log.addHandler(logging.NullHandler())
_is_muted = False


def terminal() -> Console:
    """The terminal, or the file or pipe in its place; 40 columns wide or wider."""
    console = Console()
    console.width = max(console.width, NARROWEST)
    return console


def show(*blocks: RenderableType, console: Console | None = None) -> None:
    """Shows blocks one below the other."""
    console = console or terminal()
    page = Group(*blocks)
    if not _is_muted:
        console.print(page)
    plain = io.StringIO()
    Console(file=plain, width=console.width, color_system=None, force_jupyter=False, _environ={}).print(page)
    # Its lines stand as they were shown, without a time before the first.
    record("\n" + plain.getvalue().rstrip("\n"))


def record(text: str) -> None:
    """Writes into the run's train.log alone what the terminal shows in another way, or not now."""
    _log.handle(_log.makeRecord("lmft", logging.INFO, __file__, 0, text, (), None))


@contextmanager
def muted() -> Iterator[None]:
    """Inside, the terminal shows nothing of what is shown, logged and warned of; a run's train.log gets all
    of it.
    """
    global _is_muted
    before, show_warning = _is_muted, warnings.showwarning
    silenced = [handler for handler in logging.getLogger().handlers if _writes_on_terminal(handler)]
    _is_muted, warnings.showwarning = True, _ignore
    for handler in silenced:
        handler.addFilter(_refuse)
    try:
        yield
    finally:
        for handler in silenced:
            handler.removeFilter(_refuse)
        _is_muted, warnings.showwarning = before, show_warning


def is_muted() -> bool:
    """Whether `muted` is in force."""
    return _is_muted


def draws(console: Console) -> bool:
    """Whether bars can be drawn."""
    return console.is_terminal and not console.is_dumb_terminal


def table_page(
    title: str, heads: Row, rows: Sequence[Row], notes: Sequence[str], width: int
) -> list[RenderableType]:
    """A title; below it a table, in several parts where it is too wide; below that a line or more for each
    note.
    """
    parts = parted(heads, rows, width) if rows else []
    tables = [
        table([heads[i] for i in places], [[row[i] for i in places] for row in rows], width)
        for places in parts
    ]
    lines = [Padding(Text(note), (0, 0, 0, 2), expand=False) for note in notes]
    return [Text(title, style="bold"), *tables, *lines, ""]


def parted(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """A table's columns, by their numbers, in as many parts as `width` asks for. The first column is in each
    part.
    """
    least = _least_widths(heads, rows)
    parts: list[list[int]] = []
    for place in range(1, len(heads)):
        if parts and _total_width([least[i] for i in (*parts[-1], place)]) <= width:
            parts[-1].append(place)
        else:
            parts.append([0, place])
    return parts


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Padding:
    """A table no wider than `width`, if `parted` says that it fits, with an empty line below it.

    A cell is broken between words only, so that every number stays whole; the first column, of labels,
    anywhere.
    """
    widths = _least_widths(heads, rows)
    wanted = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    for i in (*range(1, len(heads)), 0):
        widths[i] += max(0, min(wanted[i] - widths[i], width - _total_width(widths)))
    made = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for i, head in enumerate(heads):
        made.add_column(Text(head), justify="right" if i else "left", overflow="fold", width=widths[i])
    for row in rows:
        made.add_row(*map(Text, row))
    return indented(made)


def indented(table: Table) -> Padding:
    """A table below its title, and an empty line below it."""
    return Padding(table, (0, 0, 1, 1), expand=False)


def _least_widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    label, *others = zip(heads, *rows, strict=True)
    words = [
        max((cell_len(word) for cell in column for word in cell.split()), default=1) for column in others
    ]
    return [min(_NARROWEST_LABEL, max(map(cell_len, label))), *words]


def _total_width(widths: Sequence[int]) -> int:
    """Of a table with columns of these widths, each with a space on both sides, between them one more;
    indented.
    """
    return 1 + sum(width + 2 for width in widths) + len(widths) - 1


def _writes_on_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def _refuse(_: logging.LogRecord) -> bool:
    return False


def _ignore(*_: Any, **__: Any) -> None:
    """Shows no warning."""
