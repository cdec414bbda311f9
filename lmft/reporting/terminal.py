"""Print on the terminal, and write the same as plain text to the run's train.log."""

import io
import logging
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lmft.system import signals

Row = tuple[str, ...]

NARROWEST = 40  # columns; narrower terminals break lines by themselves
_NARROWEST_LABEL = 16  # least width of a table's first column, if its content is that wide

# For the run's train.log only: what is logged here is on the terminal already.
_log = logging.getLogger("lmft.terminal")
_log.propagate = False
_log.addHandler(logging.NullHandler())
_is_muted = False
_drawn_on: Console | None = None  # the console of the live display, if there is one


def draw_on(console: Console | None) -> None:
    """Keep the console of a live display, through which all else has to be printed; None: it ended."""
    global _drawn_on
    _drawn_on = console


def cropped(text: str, width: int) -> str:
    """Return a text that takes at most `width` columns, with `…` for what is left out."""
    if cell_len(text) <= width:
        return text
    return f"{set_cell_size(text, max(0, width - 1)).rstrip()}…"


def beside(texts: Sequence[str], gap: str, width: int) -> list[str]:
    """Return lines with as many texts side by side as fit; no text is broken."""
    lines: list[str] = []
    for text in texts:
        if lines and cell_len(lines[-1]) + cell_len(gap) + cell_len(text) <= width:
            lines[-1] += f"{gap}{text}"
        else:
            lines.append(text)
    return lines


def flowing(text: str, width: int) -> str:
    """Break a text's lines between words alone: a longer word, such as a path, can still be copied."""
    lines = [line for given in text.split("\n") for line in beside(given.split(" "), " ", width)]
    return "\n".join(lines)


def terminal() -> Console:
    """Return a console for stdout, at least 40 columns wide."""
    if _drawn_on is not None and not _drawn_on.stderr:
        return _drawn_on  # it prints above what it has drawn
    console = Console()
    console.width = max(console.width, NARROWEST)
    return console


def show(*blocks: RenderableType, console: Console | None = None) -> None:
    """Print blocks one below the other, and write them to the run's train.log."""
    console = console or terminal()
    page = Group(*blocks)
    plain = _plain(page, console.width)
    if not _is_muted:
        if console.is_terminal or console.is_jupyter:
            console.print(page)
        else:
            print_plain(plain, console)
    # A newline first, so that the first line is not indented by the record's time.
    record("\n" + plain.rstrip("\n"))


def print_plain(text: str, console: Console) -> None:
    """Print text to a pipe or a file; nothing if its reader is gone and a training is to end for that.

    rich would end the process at once, without saving the step.
    """
    try:
        print(text, end="", file=console.file, flush=True)
    except BrokenPipeError:
        if signals.recorded_signal() != signal.SIGPIPE:
            raise


def _plain(page: RenderableType, width: int) -> str:
    """Return what is printed as text: no colours, and no blanks at the ends of lines."""
    printed = io.StringIO()
    console = Console(file=printed, width=width, color_system=None, force_jupyter=False, _environ={})
    console.print(page)
    return "".join(f"{line.rstrip()}\n" for line in printed.getvalue().split("\n")[:-1])


def record(text: str, logger_name: str = "lmft") -> None:
    """Write a text to the run's train.log alone, because the terminal shows it in another way."""
    _log.handle(_log.makeRecord(logger_name, logging.INFO, __file__, 0, text, (), None))


@contextmanager
def muted() -> Iterator[None]:
    """Keep tables, log lines and warnings off the terminal; a run's train.log gets them all."""
    global _is_muted
    was_muted = _is_muted
    showwarning = warnings.showwarning
    handlers = [handler for handler in logging.getLogger().handlers if writes_on_terminal(handler)]
    _is_muted = True
    warnings.showwarning = _ignore
    for handler in handlers:
        handler.addFilter(_refuse)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_refuse)
        _is_muted = was_muted
        warnings.showwarning = showwarning


@contextmanager
def shown_on_stderr() -> Iterator[TextIO]:
    """Show all that the block shows on stderr; yield stdout, which has a command's result alone."""
    stdout = sys.stdout
    handlers = [
        handler
        for handler in logging.getLogger().handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is stdout
    ]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        with redirect_stdout(sys.stderr):
            yield stdout
    finally:
        for handler in handlers:
            handler.setStream(stdout)


def is_muted() -> bool:
    """Return whether the terminal is muted."""
    return _is_muted


def draws(console: Console) -> bool:
    """Return whether a console can draw progress bars."""
    return console.is_terminal and not console.is_dumb_terminal


def table_page(
    title: str, heads: Row, rows: Sequence[Row], notes: Sequence[str], width: int
) -> list[RenderableType]:
    """Return a title, a table, split into several if it is too wide, and the notes below it."""
    parts = parted(heads, rows, width) if rows else []
    tables = [
        table([heads[i] for i in columns], [[row[i] for i in columns] for row in rows], width)
        for columns in parts
    ]
    lines = [Padding(Text(note), (0, 0, 0, 2), expand=False) for note in notes]
    return [Text(title, style="bold"), *tables, *lines, ""]


def parted(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Split a table's columns, given by number, into tables that fit; each has the first column."""
    least = _least_widths(heads, rows)
    parts: list[list[int]] = []
    for column in range(1, len(heads)):
        if parts and _total_width([least[i] for i in (*parts[-1], column)]) <= width:
            parts[-1].append(column)
        else:
            parts.append([0, column])
    return parts


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Padding:
    """Return a table no wider than `width`, if `parted` finds that it fits, with an empty line below it.

    Cells are broken between words only, so that numbers stay whole; those of the first column, which are
    labels, anywhere.
    """
    widths = _least_widths(heads, rows)
    full_widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    for i in (*range(1, len(heads)), 0):
        spare = width - _total_width(widths)
        widths[i] += max(0, min(full_widths[i] - widths[i], spare))
    rich_table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for i, head in enumerate(heads):
        rich_table.add_column(
            Text(head), justify="right" if i else "left", overflow="fold", width=widths[i]
        )
    for row in rows:
        rich_table.add_row(*map(Text, row))
    return indented(rich_table)


def indented(table: Table) -> Padding:
    """Return a table indented by a space, with an empty line below it."""
    return Padding(table, (0, 0, 1, 1), expand=False)


def _least_widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the least width of each column: its longest word; of the first one less."""
    labels, *others = zip(heads, *rows, strict=True)
    words = [
        max((cell_len(word) for cell in column for word in cell.split()), default=1) for column in others
    ]
    return [min(_NARROWEST_LABEL, max(map(cell_len, labels))), *words]


def _total_width(widths: Sequence[int]) -> int:
    """Return the width of an indented table: a space on each side of a column, one more in between."""
    return 1 + sum(width + 2 for width in widths) + len(widths) - 1


def writes_on_terminal(handler: logging.Handler) -> bool:
    """Return whether a handler writes on stdout or stderr."""
    return isinstance(handler, logging.StreamHandler) and handler.stream in _streams()


def _streams() -> list[Any]:
    """Return stdout and stderr, and what they are while rich redirects them."""
    streams = [sys.stdout, sys.stderr]
    return [*streams, *(getattr(stream, "rich_proxied_file", stream) for stream in streams)]


def _refuse(_: logging.LogRecord) -> bool:
    return False


def _ignore(*_: Any, **__: Any) -> None:
    """Show no warning."""
