"""The first SIGTERM, Ctrl-C or closed output stops the process cleanly, now or at the next safe point.

Later ones are ignored.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lmft.errors import drop_closed_output

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE)


class Stopped(BaseException):
    """A signal has stopped the process; no `Exception`, so that nothing catches it as an error.

    Args:
        signum: the signal.
        saved: the checkpoint with everything trained so far, if one was saved.
        command: the command that continues from there.
    """

    def __init__(self, signum: int, saved: Path | None = None, command: str | None = None):
        super().__init__(signum)
        self.signum = signal.Signals(signum)
        self.saved = saved
        self.command = command
        self.is_silent = False  # True on ranks other than the one that reports to the user

    @property
    def exit_code(self) -> int:
        """The exit code of a process killed by the signal: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum

    def __str__(self) -> str:
        text = f"stopped by {self.signum.name}"
        if self.saved:
            text += f", saved in {self.saved}"
        if self.command:
            text += f"\n  continue: {self.command}"
        return text


@dataclass
class _State:
    """The state of signal handling in this process."""

    process: int | None = None
    """The process that handles signals; None outside `handling_signals`."""
    is_deferring: bool = False
    received: int | None = None


_state = _State()


@contextmanager
def handling_signals() -> Iterator[None]:
    """Raise `Stopped` at the first SIGTERM, SIGINT or closed output; ignore later signals.

    A SIGPIPE of another pipe is ignored, as in Python by default: the writer gets an error.

    Does nothing outside the main thread, which alone receives signals.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    before = _state
    _state = _State(os.getpid())
    install_handlers()
    try:
        yield
    finally:
        _state = before
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def install_handlers() -> None:
    """Install the handlers of `handling_signals` again, after other code may have replaced them."""
    if _state.process == os.getpid() and threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, _handle)


def defer_signals() -> None:
    """Record signals from now on instead of raising `Stopped`; the caller polls `recorded_signal`."""
    _state.is_deferring = True


def raise_signals() -> None:
    """Undo `defer_signals`. A signal that came meanwhile stays recorded, and is not raised."""
    _state.is_deferring = False


def recorded_signal() -> int | None:
    """Return the first signal received; None if there was none."""
    return _state.received


def record_signal(signum: int) -> None:
    """Record a signal that another rank received."""
    if _state.received is None:
        _state.received = signum


def let_parent_handle_signals(*_: Any) -> None:
    """Let the parent process handle signals; a DataLoader's `worker_init_fn`.

    Ctrl-C, and SIGTERM from most schedulers, go to all processes of a group. A worker that died would
    lose the batches that its parent needs to finish the step. A second SIGTERM ends the worker, as the
    parent may send one itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _handle(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _state.process:  # a forked process: its parent handles Ctrl-C
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
    elif signum == signal.SIGPIPE and not drop_closed_output():
        return
    elif _state.received is None:
        _state.received = signum
        if not _state.is_deferring:
            raise Stopped(signum)
