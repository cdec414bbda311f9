"""A thread that writes on a terminal while the main thread is in a long call."""

import os
import threading
import time
from collections.abc import Callable

SECONDS = 0.125  # between two looks at whether there is something to write

Tick = Callable[[float], bytes]
"""Given the time of `time.monotonic`, return what has to be written now."""

# The thread holds this lock while it writes. Processes that fork, such as those of a DataLoader, take it
# first, so that no copy of it stays locked.
_lock = threading.RLock()
_beats: dict["Heartbeat", None] = {}
_thread: threading.Thread | None = None


class Heartbeat:
    """Calls a function eight times a second, and writes what it returns to a file descriptor.

    The text is written by one system call: no buffer and no lock of Python's files or of rich is held
    when another thread forks.
    """

    def __init__(self, tick: Tick, descriptor: int):
        self.tick = tick
        self.descriptor = descriptor

    def start(self) -> None:
        """Begin to call the function."""
        global _thread
        with _lock:
            _beats[self] = None
            if _thread is None:
                _thread = threading.Thread(target=_run, name="lmft-heartbeat", daemon=True)
                _thread.start()

    def stop(self) -> None:
        """End it: nothing is written after this returns."""
        with _lock:
            _beats.pop(self, None)


def _run() -> None:
    """Serve the heartbeats there are; end when there is none."""
    global _thread
    while True:
        time.sleep(SECONDS)
        with _lock:
            if not _beats:
                _thread = None
                return
            for beat in list(_beats):
                _write(beat)


def _write(beat: Heartbeat) -> None:
    text = beat.tick(time.monotonic())
    if not text:
        return
    try:
        os.write(beat.descriptor, text)
    except OSError:  # closed; the main thread gets the same error when it prints, and ends the command
        _beats.pop(beat)


def _forget() -> None:
    """Leave a forked process without heartbeats: it has no such thread."""
    global _thread
    _thread = None
    _beats.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget)
