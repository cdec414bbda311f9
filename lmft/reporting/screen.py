"""The lines at the bottom of a terminal that change: a block, and below it what is being done now."""

import io
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from lmft.reporting import terminal
from lmft.reporting.heartbeat import Heartbeat
from lmft.reporting.notebook_screen import NotebookScreen

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAMES_PER_SECOND = 8
_QUIET_SECONDS = 0.3  # without output of the main thread, after which the last line moves by itself
_current: "Screen | None" = None


def make_screen(
    console: Console, block: Callable[[int], RenderableType], status: str
) -> "Screen | NotebookScreen | None":
    """Return a closed screen for a console: of a terminal or a notebook; None if it can draw neither."""
    if console.is_jupyter:
        return NotebookScreen(block, status)
    if terminal.draws(console):
        return Screen(console, block, status)
    return None


def current() -> "Screen | None":
    """Return the screen that is drawn now."""
    return _current


class Screen:
    """Draws a block and a status line below everything that is printed, until it is closed.

    The block is drawn by `refresh` alone. The status line moves by itself, so that a long call can be
    told from a program that hangs. A second screen takes the place of the first until it is closed.
    """

    def __init__(
        self,
        console: Console,
        block: Callable[[int], RenderableType] | None = None,
        status: str = "",
        is_printed_above: bool = True,
    ):
        """Create a closed screen.

        Args:
            console: a terminal.
            block: returns the block for a width in columns; None: there is none.
            status: what is being done.
            is_printed_above: whether what is printed meanwhile is put above it. It takes the places of
                stdout and stderr for that, which log handlers made meanwhile would keep.
        """
        self._is_printed_above = is_printed_above
        self.console = console
        self._block = block
        self._status = status
        self._since = time.monotonic()
        self._touched = self._since
        self._is_open = False
        self._before: Screen | None = None
        self._live: Live | None = None
        self._heartbeat: Heartbeat | None = None

    @property
    def status(self) -> str:
        """Return what is being done."""
        return self._status

    @status.setter
    def status(self, text: str) -> None:
        self._status = text
        self._since = time.monotonic()
        self.refresh()

    def open(self) -> None:
        """Draw it."""
        global _current
        self._before = _current
        if self._before is not None:
            self._before._erase()
        _current = self
        self._is_open = True
        self._since = time.monotonic()
        self._draw()

    def close(self) -> None:
        """Erase it, and draw the one that it has replaced."""
        global _current
        if not self._is_open:
            return
        self._is_open = False
        self._erase()
        _current = self._before
        if self._before is not None:
            self._before._draw()

    def print_line(self, line: str) -> None:
        """Print a line above it, which stays."""
        self.console.print(Text(line))

    def refresh(self, at_once: bool = False) -> None:
        """Draw it again, unless another one is drawn instead."""
        if self._live is not None:
            self._touched = time.monotonic()
            self._live.refresh()

    def _draw(self) -> None:
        # No refresh thread of rich: it could hold the console's lock just when a process forks.
        self._live = Live(
            console=self.console,
            get_renderable=self._page,
            auto_refresh=False,
            transient=True,
            redirect_stdout=self._is_printed_above,
            redirect_stderr=self._is_printed_above,
        )
        terminal.draw_on(self.console)
        self._touched = time.monotonic()
        self._live.start(refresh=True)
        descriptor = _descriptor(self.console)
        if descriptor is not None:
            self._heartbeat = Heartbeat(self._beat, descriptor)
            self._heartbeat.start()

    def _erase(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._live is not None:
            self._live.stop()
            self._live = None
        terminal.draw_on(None)

    def _page(self) -> RenderableType:
        self._touched = time.monotonic()
        status = Text(self._status_line(time.monotonic()), style="dim", no_wrap=True)
        if self._block is None:
            return status
        return Group(self._block(self.console.width), status)

    def _status_line(self, now: float) -> str:
        frame = _FRAMES[int(now * _FRAMES_PER_SECOND) % len(_FRAMES)]
        line = f"{frame} {self._status}"
        seconds = int(now - self._since)
        if seconds >= 1:
            line += f"  {seconds} s"
        return terminal.cropped(line, self.console.width - 1)

    def _beat(self, now: float) -> bytes:
        """Return what replaces the last line, if the main thread has printed nothing for a while."""
        if now - self._touched < _QUIET_SECONDS:
            return b""
        line = self._status_line(now)
        if not self.console.no_color and self.console.color_system is not None:
            line = f"\x1b[2m{line}\x1b[0m"
        return f"\r\x1b[2K{line}".encode(self.console.encoding, "replace")


def _descriptor(console: Console) -> int | None:
    """Return the file descriptor of a terminal; None for a terminal that only a test sees."""
    try:
        return console.file.fileno()
    except (io.UnsupportedOperation, AttributeError):
        return None
