"""The record of a search: Optuna's journal in the sweep's folder, which processes and machines share."""

import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

JOURNAL = "optuna.journal"
"""The journal's file in a sweep's folder."""
STUDY = "lmft"
"""The name of the study in a journal."""


class _Lock(JournalFileOpenLock):
    """A lock that the system releases if the process dies; Optuna's own would last for half a minute."""

    def __init__(self, path: Path):
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()


class _Journal(JournalFileBackend):
    """A journal whose last line may have been cut off when a process died."""

    def __init__(self, path: Path):
        self._file = path
        self._writing = _Lock(path.with_name(f".{path.name}.lock"))
        super().__init__(str(path), self._writing)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append entries, after an incomplete last line has been removed."""
        self._writing.acquire()
        try:
            _remove_incomplete_line(self._file)
            super().append_logs(logs)
        finally:
            self._writing.release()


def open_journal(path: Path) -> JournalStorage:
    """Return the storage in a journal, which is made if it does not exist."""
    return JournalStorage(_Journal(path))


def _remove_incomplete_line(path: Path) -> None:
    content_end = path.stat().st_size
    with path.open("rb") as file:
        position = content_end
        while position:
            start = max(0, position - 4096)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                position = start + newline + 1
                break
            position = start
    if position < content_end:
        os.truncate(path, position)
