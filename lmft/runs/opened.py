"""The folder of a run that is open: made, locked and logged to; undone if the run leaves nothing."""

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from lmft.errors import UserError
from lmft.runs.folder import RunFolder, make_folder, missing_folders, new_folder, remove_empty
from lmft.runs.lock import LOCK, locked
from lmft.runs.log import logging_to
from lmft.runs.redaction import Redactor


class OpenedFolder:
    """A run's folder while the run is open, a context manager.

    Entering makes the folder, locks it, and opens train.log. Leaving undoes that, unless the run calls
    `keep`: what entering made is deleted, and train.log has the length that it had.

    Raises: UserError on entering if the folder is in use by another process, or is no run's.
    """

    log_file: logging.Handler
    """Writes into train.log; set on entering."""

    def __init__(self, paths: RunFolder, is_named: bool, redactor: Redactor):
        """Take the folder to open.

        Args:
            paths: the folder.
            is_named: False: a folder of this name with a number, if there is one already.
            redactor: removes the secrets of the run's config from its log.
        """
        self.paths = paths
        self.is_new = False
        self._is_named = is_named
        self._redactor = redactor
        self._is_undone = False
        self._keeps_log = False
        # Size of train.log on entering, in bytes; None if there was none.
        self._log_length: int | None = None
        self._made: list[Path] = []  # folders that did not exist before
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        self._make()
        with ExitStack() as opening:
            opening.callback(self._remove_if_unwanted)
            opening.enter_context(locked(self.paths))
            self.is_new = not visible_names(self.paths.path)
            self._is_undone = self.is_new
            path = self.paths.log
            self._log_length = path.stat().st_size if path.exists() else None
            opening.callback(self._restore_log)
            self.log_file = opening.enter_context(logging_to(path, self._redactor))
            self._opened = opening.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def keep(self) -> None:
        """Keep the folder and the log."""
        self._keeps_log = True
        self._is_undone = False

    def keep_log(self) -> None:
        """Keep the log, if the folder stays."""
        self._keeps_log = True

    def undo_if_new(self) -> None:
        """Delete on leaving what entering made, and the run's first files."""
        self._is_undone = self.is_new

    def _make(self) -> None:
        folder = self.paths.path
        if not self._is_named:
            self._made = missing_folders(folder.parent)
            self.paths = RunFolder(new_folder(folder))
            self._made.insert(0, self.paths.path)
            return
        visible = visible_names(folder)
        is_run = self.paths.is_run() or self.paths.metrics.exists() or (folder / LOCK).exists()
        if visible and not is_run:
            what = f"{folder} is not a run's folder"
            raise UserError(what, f"it holds {visible[0]}", "choose another run.name")
        self._made = missing_folders(folder)
        make_folder(folder)

    def _restore_log(self) -> None:
        """Undo what was logged, unless the log is kept."""
        if self._keeps_log or not self.paths.log.exists():
            return
        if self._log_length is None:
            self.paths.log.unlink()
        else:
            os.truncate(self.paths.log, self._log_length)

    def _remove_if_unwanted(self) -> None:
        """Delete the files and folders that entering made, and nothing else."""
        if not self._is_undone:
            return
        for folder in (self.paths.tokenizer, self.paths.measurements):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (*self.paths.startup_files, self.paths.path / LOCK):
            path.unlink(missing_ok=True)
        remove_empty(self._made)


def visible_names(folder: Path) -> list[str]:
    """Return the names of a folder's files that are not hidden; none if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
