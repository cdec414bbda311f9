"""The live display of a training in a notebook: one output of the cell, which is replaced."""

import io
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

_WIDTH = 100  # columns
_SECONDS = 0.5  # between two updates at least: each is a message to the browser


class NotebookScreen:
    """Shows lines that stay, a block below them, and what is being done, in one output of a cell.

    Updating one output neither flickers nor adds lines, and needs no widgets. Closing it leaves the
    lines and the block as they are.
    """

    def __init__(self, block: Callable[[int], RenderableType], status: str = ""):
        self._block = block
        self._status = status
        self._lines: list[str] = []
        self._handle: Any = None
        self._updated = 0.0

    @property
    def status(self) -> str:
        """Return what is being done."""
        return self._status

    @status.setter
    def status(self, text: str) -> None:
        self._status = text
        self.refresh()

    def open(self) -> None:
        """Show it."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(self._content(), raw=True, display_id=True)

    def close(self) -> None:
        """Leave it as it is, with nothing being done."""
        self._status = ""
        self.refresh(at_once=True)

    def print_line(self, line: str) -> None:
        """Add a line that stays."""
        self._lines.append(line)
        self.refresh(at_once=True)

    def refresh(self, at_once: bool = False) -> None:
        """Show the newest block, unless that was done just now."""
        now = time.monotonic()
        if self._handle is not None and (at_once or now - self._updated >= _SECONDS):
            self._updated = now
            self._handle.update(self._content(), raw=True)

    def _content(self) -> dict[str, str]:
        """Return the display as text, and as HTML with the same text."""
        shown = Console(file=io.StringIO(), width=_WIDTH, record=True, force_jupyter=False)
        if self._lines:
            shown.print(Text("\n".join(self._lines)))
        shown.print(self._block(_WIDTH))
        if self._status:
            shown.print(Text(self._status, style="dim"))
        html = shown.export_html(inline_styles=True, code_format="<pre>{code}</pre>", clear=False)
        return {"text/plain": shown.export_text(), "text/html": html}
