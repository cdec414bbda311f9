"""Progress of work: a bar on a terminal, and in any case lines in the run's train.log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, is_muted, record

REFRESH_SECONDS = 0.25
COLUMNS = (
    bars.TextColumn("{task.description}"),
    bars.BarColumn(bar_width=30),
    bars.MofNCompleteColumn(),
)
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
    console = console or Console()
    started = time.monotonic()
    # No refresh thread: it could hold the console's lock just when a process forks.
    bar = bars.Progress(
        *COLUMNS,
        bars.TextColumn(unit),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
        console=console,
        auto_refresh=False,
        transient=is_muted(),
        disable=not draws(console),
    )
    task = bar.add_task(description, total=total)
    num_done = 0
    drawn = started

    def advance(num_more: int) -> None:
        nonlocal num_done, drawn
        num_done += num_more
        if time.monotonic() - drawn >= REFRESH_SECONDS:
            bar.update(task, completed=num_done, refresh=True)
            drawn = time.monotonic()

    with bar:
        yield advance
        bar.update(task, completed=num_done, refresh=True)
    seconds = max(time.monotonic() - started, 1e-9)
    line = (
        f"{description}: {num_done:,} {unit} in {duration(seconds)} ({num_done / seconds:,.0f} {unit}/s)"
    )
    log_line(line, is_drawn=not bar.disable)


def log_line(line: str, is_drawn: bool) -> None:
    """Log a line; if a bar shows its content on the terminal, write it to the run's train.log alone."""
    if is_drawn:
        record(line, log.name)
    else:
        log.info("%s", line)
