"""Name what is being done before it begins, so that no long call is silent."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

from rich.console import Console

from lmft.reporting import screen
from lmft.reporting.heartbeat import Heartbeat
from lmft.reporting.screen import Screen
from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, is_muted

_FIRST_LINE_SECONDS = 1.0  # until a line says what is being done, where nothing can be drawn
_SECOND_LINE_SECONDS = 10.0  # until the next line, which then take twice as long each


@contextmanager
def phase(doing: str, at_once: bool = False) -> Iterator[None]:
    """Show what the block does while it does it.

    On a terminal, a line that moves, and is erased at the end; inside a live display, its last line. In
    a pipe, a plain line on stderr if the block takes longer than a second, and further ones, ever rarer.

    Args:
        doing: "loading the weights".
        at_once: write the plain line at once, because Python's threads cannot run meanwhile.
    """
    shown = screen.current()
    if is_muted():
        yield
    elif shown is not None:
        before = shown.status
        shown.status = doing
        try:
            yield
        finally:
            shown.status = before
    elif (console := _console()) is not None:
        with _drawn(Screen(console, status=doing)):
            yield
    else:
        with written(lambda: doing, at_once):
            yield


@contextmanager
def first_phase(doing: str) -> Iterator[None]:
    """Show what the block does, on a terminal alone, before logging is set up: it prints nothing."""
    console = _console()
    if console is None or is_muted() or screen.current() is not None:
        yield
        return
    with _drawn(Screen(console, status=doing, is_printed_above=False)):
        yield


def load_libraries(module: str) -> None:
    """Import a module of lmft that needs PyTorch, Lightning and transformers, and show that."""
    if module in sys.modules:
        return
    # Loading a library of machine code stops all of Python's threads.
    with phase("loading PyTorch, Lightning and transformers", at_once=True):
        import_module(module)


def _console() -> Console | None:
    """Return a console that can draw, stdout or else stderr; None if both are no terminals."""
    for console in (Console(), Console(stderr=True)):
        if draws(console):
            return console
    return None


@contextmanager
def _drawn(shown: Screen) -> Iterator[None]:
    shown.open()
    try:
        yield
    finally:
        shown.close()


@contextmanager
def written(doing: Callable[[], str], at_once: bool = False) -> Iterator[None]:
    """Write lines on stderr while the block runs, if it takes longer than a second.

    Args:
        doing: returns what is being done.
        at_once: write the first line at once.
    """
    if is_muted() or Console().is_jupyter:
        yield
        return
    sys.stdout.flush()  # what was printed before has to stand before
    lines = _Lines(doing)
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, AttributeError):  # Python code that captures the output
        yield
        return
    if at_once:
        os.write(descriptor, lines(lines.started + _FIRST_LINE_SECONDS))
    heartbeat = Heartbeat(lines, descriptor)
    heartbeat.start()
    try:
        yield
    finally:
        heartbeat.stop()


class _Lines:
    """The plain lines of a phase: the first after a second, the next after 10, 20, 40 seconds, …"""

    def __init__(self, doing: Callable[[], str]):
        self.doing = doing
        self.started = time.monotonic()
        self._next = _FIRST_LINE_SECONDS

    def __call__(self, now: float) -> bytes:
        """Return the line that is due, if any."""
        seconds = now - self.started
        if seconds < self._next:
            return b""
        line = f"{self.doing()} …"
        if self._next > _FIRST_LINE_SECONDS:
            line += f" {duration(seconds)}"
        self._next = max(_SECOND_LINE_SECONDS, 2 * self._next)
        return f"{line}\n".encode()
