"""The state of a running sweep, on a terminal: the table below its jobs' lines."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.cli.sweep_table import rows_of

_NUM_SHOWN = 5  # jobs
_COLUMNS = ("job", "loss", "perplexity", "seconds")


@dataclass
class LiveTable:
    """Drawn when a job begins or ends, by no thread: that could hold the terminal while a job forks."""

    folder: Path
    num_jobs: int | None
    num_ended: int = 0
    height: int = 0
    """Lines that are on the terminal now."""
    started: float = 0.0

    def draw(self, failures: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw how many jobs have ended, and the best ones; nothing if stdout is no terminal."""
        from rich.console import Group
        from rich.text import Text

        from lmft.reporting.terminal import draws, table, terminal

        console = terminal()
        if not draws(console):
            return
        self.started = self.started or time.monotonic()
        rows = [row for row in rows_of(self.folder, failures) if row["loss"] and not row["error"]]
        cells = [tuple(row[column] for column in _COLUMNS) for row in rows[:_NUM_SHOWN]]
        parts: list[Any] = [Text(self._summary(len(failures)), style="bold")]
        if cells:
            parts.append(table(_COLUMNS, cells, console.width))
        page = Group(*parts)
        self.height = len(console.render_lines(page))
        console.print(page)

    def erase(self) -> None:
        """Remove what `draw` has drawn, if it is the last on the terminal."""
        from rich.control import Control
        from rich.segment import ControlType

        from lmft.reporting.terminal import terminal

        if self.height:
            line_above = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2))
            terminal().control(Control(*line_above * self.height))
            self.height = 0

    def _summary(self, num_failed: int) -> str:
        from lmft.reporting.tables import duration

        total = f" of {self.num_jobs}" if self.num_jobs else ""
        phrases = [f"{self.num_ended}{total} jobs have ended"]
        if num_failed:
            phrases.append(f"{num_failed} failed")
        seconds = time.monotonic() - self.started
        phrases.append(duration(seconds))
        if self.num_jobs and 0 < self.num_ended < self.num_jobs:
            left = seconds / self.num_ended * (self.num_jobs - self.num_ended)
            phrases.append(f"about {duration(left)} left")
        return ", ".join(phrases)
