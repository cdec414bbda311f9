"""Progress of work: a bar on a terminal, and in any case lines in the run's train.log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console

from lmft.reporting.live import Position, bar_line
from lmft.reporting.phase import written
from lmft.reporting.screen import Screen
from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, record

Counting = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], None]]]
"""A progress display: called with (description, total, unit), it gives a function that advances it."""

REFRESH_SECONDS = 0.25
log = logging.getLogger(__name__)


@contextmanager
def counting_progress(
    description: str, total: int | None, unit: str, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Show the progress of work that has no Trainer, and log one line at its end unless it fails.

    It yields a function that is called with the number of units done since its last call.

    Args:
        description: the work.
        total: how many units there are; None: unknown.
        unit: what is counted.
        console: where the bar is drawn; None: the terminal.
    """
    count = _Count(description, total, unit)
    console = console or Console()
    if draws(console):
        screen = Screen(console, lambda width: count.bar(width, console.options.ascii_only), description)
        count.changed = screen.refresh
        screen.open()
        try:
            yield count.advance
        finally:
            screen.close()
    else:
        with written(count.sentence):
            yield count.advance
    log.info("%s", count.summary)


class _Count:
    """Holds how much of the work is done."""

    def __init__(self, description: str, total: int | None, unit: str):
        self.description = description
        self.total = total
        self.unit = unit
        self.num_done = 0
        self.started = time.monotonic()
        self.drawn = self.started
        self.changed: Callable[[], None] = lambda: None

    def advance(self, num_more: int) -> None:
        """Count units, and show them if it is time to."""
        self.num_done += num_more
        now = time.monotonic()
        if now - self.drawn >= REFRESH_SECONDS:
            self.drawn = now
            self.changed()

    @property
    def position(self) -> Position:
        """Return how far the work is."""
        left = ""
        if self.total is not None and 0 < self.num_done < self.total:
            seconds = time.monotonic() - self.started
            left = f"{duration(seconds / self.num_done * (self.total - self.num_done))} left"
        return Position(self.description, self.num_done, self.total, left, self.unit)

    def bar(self, width: int, is_ascii: bool):
        """Return the line that a terminal shows."""
        return bar_line(self.position, width, is_ascii)

    def sentence(self) -> str:
        """Return the line that a pipe gets while the work continues."""
        return f"{self.description}: {self.position.counted}"

    @property
    def summary(self) -> str:
        """The line of finished work."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        speed = f"{self.num_done / seconds:,.0f} {self.unit}/s"
        return f"{self.description}: {self.num_done:,} {self.unit} in {duration(seconds)} ({speed})"


def log_line(line: str, is_drawn: bool) -> None:
    """Log a line; if the terminal shows its content already, write it to the run's train.log alone."""
    if is_drawn:
        record(line, log.name)
    else:
        log.info("%s", line)
