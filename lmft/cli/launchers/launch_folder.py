"""A hidden folder in a sweep's folder, by which a launcher and its jobs know of each other.

It holds locks, which the system releases when a process dies: of the launcher, of each running job, and
of the GPUs of each process. A file in it asks the jobs to stop.
"""

import fcntl
import logging
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

NAME = ".jobs"
_STOP = "stop"
_SECONDS = 0.5  # between two looks whether the jobs have to stop
# The share of this process of the machine, for as long as the process lives.
_held: tuple[Path, FileLock] | None = None
_is_running = threading.Event()  # set while this process runs a job


@dataclass(frozen=True)
class LaunchFolder:
    """The folder of one launcher; jobs get a copy of this object."""

    path: Path

    @classmethod
    def of(cls, sweep_folder: Path) -> "LaunchFolder":
        """Return the folder of this process in a sweep's folder."""
        return cls(sweep_folder.absolute() / NAME / f"{os.getpid()}-{socket.gethostname()}")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder for the block.

        Jobs that a killed launcher has left are stopped first, since they hold the locks of their runs.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for other in sorted(self.path.parent.glob("*/")):
            _take_over(LaunchFolder(other))
        with FileLock(self._launcher_lock):  # held before there is a folder that could be taken over
            self.path.mkdir()
            try:
                yield
            finally:
                self.remove()
        with suppress(OSError):  # another launcher of this sweep has a folder there
            self.path.parent.rmdir()

    def remove(self) -> None:
        """Delete the folder and its lock."""
        shutil.rmtree(self.path)
        self._launcher_lock.unlink(missing_ok=True)

    def ask_to_stop(self) -> None:
        """Ask all jobs to save their checkpoints and stop."""
        (self.path / _STOP).touch()

    def is_asked_to_stop(self, stops_with_launcher: bool) -> bool:
        """Return whether a job has to stop.

        stops_with_launcher: also if the launcher's process is gone.
        """
        if (self.path / _STOP).exists() or not self.path.exists():
            return True
        return stops_with_launcher and self.is_abandoned

    def has_begun(self, number: int) -> bool:
        """Return whether a job has begun to run."""
        return self._lock_of(number).exists()

    @contextmanager
    def running(self, number: int, stops_with_launcher: bool) -> Iterator[None]:
        """Hold the lock of a job in the block, and send this process SIGTERM if the job has to stop."""
        has_ended = threading.Event()

        def watch() -> None:
            while not has_ended.wait(_SECONDS):
                if self.is_asked_to_stop(stops_with_launcher):
                    os.kill(os.getpid(), SIGTERM)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        with FileLock(self._lock_of(number)):
            _is_running.set()
            watcher.start()
            try:
                yield
            finally:
                _is_running.clear()
                has_ended.set()
                watcher.join()

    def take_share(self, shares: Sequence[dict[str, str]]) -> None:
        """Set the environment variables of a share of the machine that no other process has.

        A process keeps its share: CUDA reads CUDA_VISIBLE_DEVICES only once. If all shares are taken,
        wait for one, unless the jobs have to stop.
        """
        global _held
        if _held is not None and _held[0] == self.path:
            return
        _held = None
        while not self.is_asked_to_stop(stops_with_launcher=True):
            for i, share in enumerate(shares):
                lock = FileLock(self.path / f"share-{i}.lock")
                with suppress(Timeout):
                    lock.acquire(timeout=0)
                    os.environ.update(share)
                    _held = (self.path, lock)
                    threading.Thread(target=self._exit_if_abandoned, daemon=True).start()
                    return
            time.sleep(_SECONDS)

    def _exit_if_abandoned(self) -> None:
        """End this process once its launcher is gone; nothing else would, if it has no job."""
        while _is_running.wait(_SECONDS) or not self.is_abandoned:
            time.sleep(_SECONDS)
        os._exit(1)

    def stop_jobs(self) -> None:
        """Stop all jobs, and wait until none is running."""
        self.ask_to_stop()
        for path in sorted(self.path.glob("job-*.lock")):
            if not _is_free(path):
                log.info("waiting until a job of the killed sweep has saved its checkpoint")
            with FileLock(path):
                pass

    @property
    def is_abandoned(self) -> bool:
        """True if the launcher's process is gone."""
        return _is_free(self._launcher_lock)

    @property
    def _launcher_lock(self) -> Path:
        return self.path.with_name(f"{self.path.name}.lock")

    def _lock_of(self, number: int) -> Path:
        return self.path / f"job-{number}.lock"


def _take_over(other: LaunchFolder) -> None:
    """Stop the jobs of a launcher that is gone, and delete its folder."""
    if other.is_abandoned:
        other.stop_jobs()
        other.remove()


def _is_free(path: Path) -> bool:
    """Return whether no process holds a lock; one that does not exist is free."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that others can look as well
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
