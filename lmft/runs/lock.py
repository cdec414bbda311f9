"""The lock of a run's folder: one process at a time."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from lmft.errors import UserError
from lmft.runs.folder import RunFolder
from lmft.system import files

LOCK = ".lock"
"""The lock's file in the run's folder."""
_OWNER = ".owner"  # names the process that holds the lock, for the error message of other processes


def this_process() -> str:
    """Return the number, machine and start of this process, for messages."""
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock a run's folder for this process. The system releases the lock of a process that dies."""
    lock = FileLock(folder.path / LOCK)
    owner = folder.path / _OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        where = owner.read_text("utf-8") if owner.exists() else None
        fix = "wait for it, stop it, or choose another run.name"
        raise UserError(f"the run in {folder.path} is in use", where, fix) from None
    try:
        files.write_text(owner, this_process())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def is_locked(folder: RunFolder) -> bool:
    """Return whether a process is at work in a run's folder. A reader's question: nothing is written."""
    path = folder.path / LOCK
    if not path.exists() or not (folder.path / _OWNER).exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
