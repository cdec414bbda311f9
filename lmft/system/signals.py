"""SIGTERM, Ctrl-C, and output that nobody reads any more: the first of them ends the process in good order,
at once or where it says; no other is heard.
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
    """A signal has ended what was going on. No `Exception`: nothing that tries again or looks past errors
    catches it.

    signum: the signal; saved: the checkpoint that holds all that was done; command: what goes on from there;
    is_silent: whether another process, of those that train together, tells the user.
    """

    def __init__(self, signum: int, saved: Path | None = None, command: str | None = None):
        super().__init__(signum)
        self.signum, self.saved, self.command = signal.Signals(signum), saved, command
        self.is_silent = False

    @property
    def exit_code(self) -> int:
        """As a shell tells it of a process that died of the signal: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum

    def __str__(self) -> str:
        saved = f", saved in {self.saved}" if self.saved else ""
        goes_on = f"\n  go on: {self.command}" if self.command else ""
        return f"stopped by {self.signum.name}{saved}{goes_on}"


@dataclass
class _Answer:
    """How this process answers signals."""

    process: int | None = None
    """The process that handles signals; None while nobody does."""
    waits: bool = False
    received: int | None = None


_answer = _Answer()


@contextmanager
def handling_signals() -> Iterator[None]:
    """Inside, the first SIGTERM, SIGINT, or SIGPIPE of stdout or stderr, raises `Stopped`; no later one does
    anything.

    A SIGPIPE of another pipe does nothing, as Python has it: who writes there gets an error.

    Outside of the main thread, which alone gets signals, nothing is changed.
    """
    global _answer
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    before, _answer = _answer, _Answer(os.getpid())
    install_handlers()
    try:
        yield
    finally:
        _answer = before
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def install_handlers() -> None:
    """Inside of `handling_signals`: puts its handlers back in the place of others that were set meanwhile."""
    if _answer.process == os.getpid() and threading.current_thread() is threading.main_thread():
        for signum in SIGNALS:
            signal.signal(signum, _handle)


def defer_signals() -> None:
    """From now on a signal raises nothing: who calls this looks at `requested` from time to time."""
    _answer.waits = True


def raise_signals() -> None:
    """Undoes `answer_later`. A signal that came meanwhile stays `requested`, and is not raised."""
    _answer.waits = False


def recorded_signal() -> int | None:
    """The first signal that came; None before."""
    return _answer.received


def record_signal(signum: int) -> None:
    """Takes for this process's own what another one has got that works at the same."""
    if _answer.received is None:
        _answer.received = signum


def let_parent_handle_signals(*_: Any) -> None:
    """For a process that works for another (`worker_init_fn` of a DataLoader): its parent answers signals to
    them all.

    Ctrl-C, and SIGTERM from most schedulers, go to all processes of a group. A worker that died of it would
    take the batches with it that end the parent's step. The second SIGTERM ends it: its parent may be in need
    of that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _handle(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _answer.process:  # a forked process: Ctrl-C is its parent's to answer
        if signum == signal.SIGTERM:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
    elif signum == signal.SIGPIPE and not drop_closed_output():
        return
    elif _answer.received is None:
        _answer.received = signum
        if not _answer.waits:
            raise Stopped(signum)
