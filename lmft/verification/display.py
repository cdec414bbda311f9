"""Show the checks of a verification as they are made: a line each, that wraps at any width."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.table import Table
from rich.text import Text

from lmft.reporting.screen import Screen
from lmft.reporting.terminal import draws, show, terminal
from lmft.verification.check import Check

_STYLES = {"passed": "green", "failed": "bold red", "does not apply": "dim"}
_OUTCOME_WIDTH = max(map(len, _STYLES))
_SHARE_OF_NAME = 0.36  # of the width that the outcome leaves


class Display:
    """The lines of a verification, and below them what is being done, if the terminal can draw it."""

    def __init__(self) -> None:
        self.console = terminal()
        self._screen: Screen | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._screen is not None:
            self._screen.close()

    def begin(self, doing: str) -> None:
        """Show what is done next: drawn on a terminal, else as a line."""
        if not draws(self.console):
            show(Text(f"{doing} …"), console=self.console)
        elif self._screen is None:
            self._screen = Screen(self.console, status=doing)
            self._screen.open()
        else:
            self._screen.status = doing

    def show(self, checks: Sequence[Check]) -> None:
        """Show checks, a line each; of a failed one also what was allowed, and why that much."""
        show(lines(checks, self.console.width), console=self.console)

    def end(self, summary: str) -> None:
        """Show the last line."""
        show(Text(f"\n{summary}", style="bold"), console=self.console)


def lines(checks: Sequence[Check], width: int) -> Table:
    """Return a line for each check: outcome, claim and figure, with its details below it."""
    left = width - _OUTCOME_WIDTH - 4
    name_width = int(left * _SHARE_OF_NAME)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_OUTCOME_WIDTH)
    table.add_column(width=name_width, overflow="fold")
    table.add_column(width=left - name_width, overflow="fold")
    for check in checks:
        outcome = Text(check.outcome, style=_STYLES[check.outcome])
        table.add_row(outcome, Text(check.name), Text(check.figure))
        if check.outcome == "failed" and check.tolerance is not None:
            table.add_row("", "", Text(f"allowed: {check.tolerance:.2g}, {check.origin}"))
        for detail in check.details:
            table.add_row("", "", Text(detail, style="dim"))
    return table
