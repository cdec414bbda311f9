"""How far a run is: a bar on a terminal, and lines now and then, which the run's log gets in either case."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as bars
from rich.console import Console

from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, is_muted, record

REFRESH_SECONDS = 0.25
log = logging.getLogger("lmft")


@contextmanager
def counting_progress(
    description: str, total: int | None, unit: str, console: Console | None = None
) -> Iterator[Callable[[int], None]]:
    """Counts work that has no trainer: `with counting("tokenising", 25_000, "documents") as advance:
    advance(512)`.

    At the end one line goes to the logger `lmft`, unless the work failed; on a terminal it goes to the run's
    log alone,
    and a bar is drawn. `total` may be None: unknown.
    """
    console = console or Console()
    started = time.monotonic()
    num_done = 0
    # No refreshing thread: it could hold the console's lock just when a process forks.
    columns = (*_COLUMNS[:3], bars.TextColumn(unit), bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    bar = bars.Progress(
        *columns, console=console, auto_refresh=False, transient=is_muted(), disable=not draws(console)
    )
    task = bar.add_task(description, total=total)
    shown = started

    def advance(num_more: int) -> None:
        nonlocal num_done, shown
        num_done += num_more
        if time.monotonic() - shown >= REFRESH_SECONDS:
            bar.update(task, completed=num_done, refresh=True)
            shown = time.monotonic()

    with bar:
        yield advance
        bar.update(task, completed=num_done, refresh=True)
    seconds = max(time.monotonic() - started, 1e-9)
    line = f"{description}: {num_done:,} {unit} in {duration(seconds)} ({num_done / seconds:,.0f} {unit}/s)"
    _say(line, is_drawn=not bar.disable)


def _say(line: str, is_drawn: bool) -> None:
    """Logs a line, or leaves it to the run's log where a bar has shown what it says."""
    if is_drawn:
        record(line)
    else:
        log.info("%s", line)


_COLUMNS = (bars.TextColumn("{task.description}"), bars.BarColumn(bar_width=30), bars.MofNCompleteColumn())
