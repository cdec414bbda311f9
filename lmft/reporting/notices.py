"""Warnings and notes: held back while something else is shown, then printed together, each once.

They come from log records and from Python's warnings, of lmft and of libraries. A run's train.log gets
them as they come.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table
from rich.text import Text

from lmft.reporting import python_warnings
from lmft.reporting.terminal import flowing, is_muted, print_plain, terminal, writes_on_terminal

_MOST_CHARACTERS = 600  # of a notice; the log has all of it


class Notices:
    """The warnings and notes that wait to be printed."""

    def __init__(self) -> None:
        self._warnings: dict[str, int] = {}  # text -> how often it came
        self._notes: dict[str, None] = {}
        self._printed: set[str] = set()  # warnings
        self._latest: logging.LogRecord | None = None
        self._process = os.getpid()
        self.holds_notes = False
        """Whether notes wait, too; otherwise they are printed at once."""
        self.holds_warnings = True
        """Whether warnings wait."""

    @property
    def newest_waiting(self) -> str:
        """The newest warning that waits, with the number of the others; empty if there is none."""
        if not self._warnings:
            return ""
        text = next(reversed(self._warnings))
        more = len(self._warnings) - 1
        return f"{text} (and {more} more)" if more else text

    def take(self, record: logging.LogRecord) -> bool:
        """Take a log record; return whether its handler has to write it nevertheless."""
        if os.getpid() != self._process:  # of a DataLoader's process, which ends without printing it
            return True
        if record is self._latest:  # another handler's turn
            return False
        self._latest = record
        text = _cut(record.getMessage())
        if record.levelno >= logging.ERROR:
            self.flush()
            _print(Text(_with_traceback(text, record), style="red"))
        elif record.levelno >= logging.WARNING:
            self._warn(_with_library(text, record))
        elif self.holds_notes:
            self._notes[text] = None
        else:
            _print(Text(text))
        return False

    def take_warning(self, text: str) -> bool:
        """Take one of Python's warnings; return whether it was taken."""
        if os.getpid() != self._process:
            return False
        self._warn(_cut(text))
        return True

    def begin(self) -> None:
        """Begin in this process, with nothing that was printed before: each command prints it once."""
        self._process = os.getpid()
        self._printed.clear()
        self.holds_warnings = True

    def _warn(self, text: str) -> None:
        """Keep a warning, unless it was printed before."""
        if text not in self._printed:
            self._warnings[text] = self._warnings.get(text, 0) + 1
        if not self.holds_warnings:
            self.flush()

    def flush(self) -> None:
        """Print what waits: the notes, then the warnings."""
        notes = list(self._notes)
        waiting = dict(self._warnings)
        self._notes.clear()
        self._warnings.clear()
        self._printed.update(waiting)
        if is_muted():
            return
        for note in notes:
            _print(Text(note))
        if not waiting:
            return
        _print(Text("warning" if len(waiting) == 1 else "warnings", style="bold yellow"))
        for text, number in waiting.items():
            times = f" ({number} times)" if number > 1 else ""
            _print_bullet(f"{text}{times}")


notices = Notices()
"""Those of this process."""


def _print(block: Text) -> None:
    """Print on the terminal, broken between words, or in a pipe on one line; a log has it already."""
    if is_muted():
        return
    console = terminal()
    if console.is_terminal:
        console.print(Text(flowing(block.plain, console.width), style=block.style), soft_wrap=True)
    elif console.is_jupyter:
        console.print(block, soft_wrap=True)
    else:
        print_plain(block.plain + "\n", console)


def _print_bullet(text: str) -> None:
    """Print a text after a mark: on a terminal broken between words, in a pipe on one line."""
    console = terminal()
    if is_muted():
        return
    if not console.is_terminal:
        _print(Text(f"  ! {text}"))
        return
    line = Table.grid(padding=(0, 1))
    line.add_row(Text("  !", style="yellow"), Text(text, overflow="fold"))
    console.print(line)


def _with_library(text: str, record: logging.LogRecord) -> str:
    library = record.name.partition(".")[0]
    return text if library == "lmft" else f"{library}: {text}"


def _with_traceback(text: str, record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return text
    return f"{text}\n{logging.Formatter().formatException(record.exc_info)}"


def _cut(text: str) -> str:
    text = text.strip()
    if len(text) > _MOST_CHARACTERS:
        return f"{text[:_MOST_CHARACTERS].rstrip()}…"
    return text


@contextmanager
def collecting_notices(holds_notes: bool = False) -> Iterator[Notices]:
    """Hold back the block's warnings until `notices.flush`; print the rest at the end of the block.

    In another such block this only changes whether notes are held, and adds handlers of libraries that
    were loaded in between.
    """
    before = notices.holds_notes
    notices.holds_notes = holds_notes or before
    filtered = [handler for handler in _handlers() if notices.take not in handler.filters]
    for handler in filtered:
        handler.addFilter(notices.take)
    taker = python_warnings.give_to(notices.take_warning)
    if taker is None:
        notices.begin()
    try:
        yield notices
    finally:
        python_warnings.give_to(taker)
        for handler in filtered:
            handler.removeFilter(notices.take)
        notices.holds_notes = before
        notices.flush()


def _handlers() -> list[logging.Handler]:
    """Return all handlers of all loggers that write on the terminal."""
    loggers: list[Any] = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {
        handler: None
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if writes_on_terminal(handler)
    }
    if logging.lastResort is not None:  # it writes on stderr if there is no other
        handlers[logging.lastResort] = None
    return list(handlers)
