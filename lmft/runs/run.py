"""A run: one training, one folder, one process at a time."""

import logging
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from lmft.config.overrides import assignment
from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.runs.folder import (
    RunFolder,
    checked_name,
    default_name,
    make_folder,
    missing_folders,
    new_folder,
    remove_empty,
)
from lmft.runs.log import logging_to
from lmft.runs.redaction import Redactor
from lmft.runs.resume import check_bound, check_changes, checkpoint_to_resume, recorded_settings
from lmft.system import files
from lmft.system.files import read_json, write_json
from lmft.system.signals import Stopped

log = logging.getLogger(__name__)

_LOCK = ".lock"
_OWNER = ".owner"  # which process holds the lock, for those that it keeps out
# Environment variables, in the order in which Lightning looks.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_NAME_VARIABLE = "LMFT_RUN_NAME"  # by which the processes that a run starts learn its name


class Run:
    """One run. Nothing is touched on disk before it is entered; then its folder is this process's until it is
    left.

        run = Run(config, {"model": "distilbert", "data": "imdb"}, sys.argv[1:])
        with run:
            trainer, model = build(config)
            run.begin()
            metrics = train(checkpoint=run.checkpoint)
            run.write_metrics(metrics)

    Entering makes the folder, locks it, and has train.log collect what is logged. Nothing else is written
    before `begin`, which is called when nothing can be refused any more: it writes config.yaml and
    command.txt. Leaving by a `UserError` or a signal before it takes everything back, so that a refused
    command leaves each file of an earlier run as it was. Leaving by a `UserError` later removes a folder that
    was new, unless something was trained in it; after another error metrics.json says `failed`, after an
    interrupt or a signal `stopped` and the command that continues, unless this run had written it. Of several
    processes that train together only the first writes.

    Args:
        config: plain config with `run.dir`, `run.name`, `resume`.
        choices: group -> name of its YAML; a run without a name is called <model>-<data>-<time> after them.
        arguments: command-line arguments that ask for this run; None: it was started from Python.

    Raises: UserError, here if the name would leave `run.dir`; when entered if the folder is in use by another
    process, or what is in it does not fit `resume`; when left by an error if the folder is gone.
    """

    paths: RunFolder
    checkpoint: Path | None = None
    """Where to continue from; known once the run is entered."""

    def __init__(
        self,
        config: Mapping[str, Any],
        choices: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] | None = None,
    ):
        self._config, self._arguments = config, arguments
        self._dir = Path(config["run"]["dir"])
        self._writes = next((int(os.environ[name]) for name in _RANKS if name in os.environ), 0) == 0
        inherited = None if self._writes else os.environ.get(_NAME_VARIABLE)
        self._given_name = inherited or config["run"]["name"]
        self._redactor = Redactor(config)
        self._is_new = self._is_unwanted = self._metrics_written = self._has_begun = False
        self._log_length: int | None = None  # of train.log before this run; None: there was none
        self._keeps_log = False
        self._made: list[Path] = []  # folders that were not there before
        self._opened = ExitStack()
        name = default_name(choices or {}) if self._given_name is None else str(self._given_name)
        self.paths = RunFolder(self._dir / checked_name(name))

    @property
    def folder(self) -> Path:
        """The run's folder; without a name given, certain only once the run is entered."""
        return self.paths.path

    @property
    def name(self) -> str:
        """The `run.name` that continues this run; without one given, certain only once the run is entered."""
        return self.folder.relative_to(self._dir).as_posix()

    @property
    def command(self) -> str:
        """The command that goes on with this run; secrets are redacted in it."""
        if self._arguments is None:
            place = {"dir": str(self._dir), "name": self.name}
            code = f"import yaml; from lmft import api; config = yaml.safe_load(open({str(self.paths.config)!r})); "
            return shlex.join(
                ["python", "-c", f"{code}api.train(config | {{'run': {place}, 'resume': 'auto'}})"]
            )
        # What continues a run takes its newest checkpoint, whatever it began with.
        kept = [
            argument
            for argument in self._arguments
            if argument.partition("=")[0] not in ("run.name", "resume")
        ]
        words = [
            "python",
            "-m",
            "lmft.train",
            *map(self._redactor.argument, kept),
            assignment("run.name", self.name),
        ]
        return shlex.join(words)

    def status(self) -> str | None:
        """How an earlier run of this name ended: `complete`, `stopped`, `failed`; None if there was none."""
        return None if self._given_name is None else self.paths.status()

    @property
    def config(self) -> Mapping[str, Any]:
        """The config, with its secrets."""
        return self._config

    def redacted(self, value: Any) -> Any:
        """Plain data without the secrets of the config and of the environment."""
        return self._redactor.value(value)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes metrics.json. What JSON has no number for (infinity, NaN) becomes null."""
        if self._writes:
            write_json(self.paths.metrics, self._redactor.value(metrics))
            self._metrics_written = True

    def begin(self) -> bool:
        """Write config.yaml and command.txt, and delete temporary files of crashed processes; once, in one
        process.

        Returns: whether this call did it.
        """
        if self._has_begun or not self._writes:
            return False
        self._has_begun = self._keeps_log = True
        self._is_unwanted = False
        files.remove_leftovers(self.folder)
        checkpoints.remove_leftovers(self.paths.checkpoints)
        text = yaml.safe_dump(self._redactor.value(self._config), sort_keys=False, allow_unicode=True)
        files.write_text(self.paths.config, text)
        files.write_text(self.paths.command, f"# {_this_process()}\n{self.command}\n")
        return True

    def check_settings(self) -> None:
        """Compare the config with that of the run to be continued, before anything heavy. Raises: UserError."""
        continued = self._continued()
        if continued is not None and continued.is_run():
            recorded = recorded_settings(continued)
            if isinstance(recorded, Mapping):
                check_bound(recorded, self._redactor.value(self._config), continued.config)

    def _continued(self) -> RunFolder | None:
        """Return the run whose checkpoint this one begins with; None if there is none, or it is not known
        yet.
        """
        resume = str(self._config["resume"])
        if resume in ("auto", "must", "never"):
            has_trained = self.status() == "complete" or any(self.paths.checkpoints.glob("*.ckpt"))
            return self.paths if self._given_name is not None and has_trained else None
        path = Path(resume)
        return RunFolder(path.parent.parent if path.suffix == ".ckpt" else path)

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            if self._writes:
                self._make_folder()
                opening.callback(self._remove_if_unwanted)
                opening.enter_context(_lock(self.paths))
                self._is_new = self._is_unwanted = not _visible(self.folder)
                self._log_length = self.paths.log.stat().st_size if self.paths.log.exists() else None
                opening.callback(self._restore_log)
                self._log_file = opening.enter_context(logging_to(self.paths.log, self._redactor))
            elif self._given_name is None:
                raise UserError(
                    "processes that train together need a name for their run", fix="add run.name=NAME"
                )
            self.checkpoint = checkpoint_to_resume(self.paths, self.name, str(self._config["resume"]))
            if self.checkpoint is not None:
                from lmft.runs.checkpoint_io import settings_of

                check_changes(
                    settings_of(self.checkpoint), self._redactor.value(self._config), self.checkpoint
                )
            if self._writes:
                os.environ[_NAME_VARIABLE] = self.name
                opening.callback(os.environ.pop, _NAME_VARIABLE, None)
            self._opened = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Stopped):
            error.command = self.command
        with self._opened:
            if error is None or not self._writes:
                return
            if not self.folder.exists():
                if isinstance(error, UserError) or not isinstance(error, Exception):
                    return
                raise UserError(
                    "the run's folder is gone", str(self.folder), "the same command begins anew"
                ) from error
            if not self._has_begun and (isinstance(error, UserError) or not isinstance(error, Exception)):
                return  # refused: everything is taken back
            self._keeps_log = True
            passing = {path.name for path in self.paths.startup_files}
            if isinstance(error, UserError) and passing.issuperset(_visible(self.folder)):
                self._is_unwanted = self._is_new
                return
            self._log_end(error)
            if not self._has_begun and not self._is_new:
                return  # a fault of ours, before anything of the earlier run was touched
            self._is_unwanted = False
            if not self._metrics_written:
                self._write_end("failed" if isinstance(error, Exception) else "stopped")

    def _log_end(self, error: BaseException) -> None:
        """Into the log's file alone: the shell says what the user is to read."""
        record: dict[str, Any] = {
            "name": __name__,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": str(error),
        }
        if not isinstance(error, Stopped):
            record |= {"levelno": logging.ERROR, "levelname": "ERROR", "msg": "the run ended early"}
            record["exc_info"] = (type(error), error, error.__traceback__)
        self._log_file.handle(logging.makeLogRecord(record))

    def _write_end(self, status: str) -> None:
        goes_on = {"command": self.command} if status == "stopped" else {}
        try:
            self.write_metrics({**read_json(self.paths.metrics), "status": status, **goes_on})
        except OSError as failure:  # a full disk may be why the run ends: then that is the error to see
            log.warning("%s could not be written: %s", self.paths.metrics, failure.strerror)

    def _make_folder(self) -> None:
        visible = _visible(self.folder) if self._given_name is not None else []
        is_run = self.paths.is_run() or self.paths.metrics.exists() or (self.folder / _LOCK).exists()
        if visible and not is_run:
            raise UserError(
                f"{self.folder} is not a run's folder", f"it holds {visible[0]}", "choose another run.name"
            )
        self._made = missing_folders(self.folder)
        if self._given_name is not None:
            make_folder(self.folder)
            return
        self._made = missing_folders(self.folder.parent)
        self.paths = RunFolder(new_folder(self.folder))
        self._made.insert(0, self.folder)

    def _restore_log(self) -> None:
        """Takes back what was logged, unless the run has begun."""
        if self._keeps_log or not self.paths.log.exists():
            return
        if self._log_length is None:
            self.paths.log.unlink()
        else:
            os.truncate(self.paths.log, self._log_length)

    def _remove_if_unwanted(self) -> None:
        """Removes what entering wrote and made; nothing else."""
        if not self._is_unwanted:
            return
        shutil.rmtree(self.paths.tokenizer, ignore_errors=True)
        for path in (*self.paths.startup_files, self.folder / _LOCK):
            path.unlink(missing_ok=True)
        remove_empty(self._made)


def _visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.is_dir() else []


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


@contextmanager
def _lock(folder: RunFolder) -> Iterator[None]:
    """Keeps other processes out. The system drops the lock of a process that dies, so that no lock is ever
    stale.
    """
    lock = FileLock(folder.path / _LOCK)
    owner = folder.path / _OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        where = owner.read_text("utf-8") if owner.exists() else None
        fix = "wait for it, end it, or choose another run.name"
        raise UserError(f"the run in {folder.path} is in use", where, fix) from None
    try:
        files.write_text(owner, _this_process())
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
