"""A run: one training, one folder, one process at a time."""

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from lmft.config.grammar import assignment
from lmft.errors import UserError, one_line
from lmft.runs import checkpoints
from lmft.runs.branch import Parent, check_folder, folder_of, is_branch, parent_of, recorded_parent
from lmft.runs.folder import RunFolder, checked_dir, checked_name, default_name
from lmft.runs.lock import this_process
from lmft.runs.opened import OpenedFolder, visible_names
from lmft.runs.redaction import Redactor
from lmft.runs.report import write_report
from lmft.runs.resume import (
    check_bound,
    check_bound_of_branch,
    checkpoint_at,
    checkpoint_to_resume,
    log_changes,
    newest_checkpoint,
    recorded_settings,
)
from lmft.system import files
from lmft.system.files import read_json, write_json
from lmft.system.processes import rank
from lmft.system.signals import Stopped

log = logging.getLogger(__name__)

_NAME_VARIABLE = "LMFT_RUN_NAME"  # passes the run's name to the processes that the run starts


class Run:
    """One run, a context manager: the folder is locked while the context is open.

        run = Run(config, {"model": "distilbert", "data": "imdb"}, sys.argv[1:])
        with run:
            trainer, model = build(config)
            run.begin()
            metrics = train(checkpoint=run.checkpoint)
            run.write_metrics(metrics)

    Entering makes the folder, locks it, and opens train.log. Nothing else is written before `begin`,
    which is called after the last check and writes config.yaml and command.txt.

    How a run ends:

    - `UserError` or signal before `begin`: everything is undone; an earlier run's files are unchanged.
    - `UserError` after `begin`: a new folder without training is deleted.
    - Other error: metrics.json has the status `failed`.
    - Interrupt or signal: it has the status `stopped`, and the command to continue.
    - If `write_metrics` was called, metrics.json stays.

    Only rank 0 writes.

    Args:
        config: plain config with `run.dir`, `run.name`, `resume`.
        choices: group -> name of its YAML; the default name is <model>-<data>-<time>.
        arguments: command-line arguments of this run; None if it was started from Python.

    Raises: UserError: on construction if the name would leave `run.dir`; on entering if the folder is in
    use by another process, or its content does not fit `resume`; on leaving by an error if the folder is
    gone.
    """

    paths: RunFolder
    checkpoint: Path | None = None
    """The checkpoint to resume from; set on entering."""
    origin: Path | None = None
    """The checkpoint of another run that a branch begins from; set on entering. None: it has begun."""
    parent: Parent | None = None
    """The run that this one is a branch of; set on entering."""
    facts: Mapping[str, Any] | None = None
    """What is known before the first step, for facts.json; set by the training."""
    _opened_folder: OpenedFolder  # of the process that writes, while the run is open

    def __init__(
        self,
        config: Mapping[str, Any],
        choices: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] | None = None,
        is_verbose: bool = False,
    ):
        self._config = config
        self.is_verbose = is_verbose
        self._choices = choices or {}
        self._arguments = arguments
        self._dir = checked_dir(config["run"]["dir"])
        self._writes = rank() == 0
        inherited = None if self._writes else os.environ.get(_NAME_VARIABLE)
        self._given_name = inherited or config["run"]["name"]
        self._redactor = Redactor(config)
        self._metrics_written = False
        self._has_begun = False
        self._opened = ExitStack()
        name = self._given_name
        if name is None:
            name = default_name(self._choices)
        self.paths = RunFolder(self._dir / checked_name(str(name)))

    @property
    def folder(self) -> Path:
        """The run's folder; without run.name, the name may still change on entering (if it exists)."""
        return self.paths.path

    @property
    def name(self) -> str:
        """The `run.name` that continues this run; a default name is final only on entering."""
        return self.folder.relative_to(self._dir).as_posix()

    @property
    def command(self) -> str:
        """The command that continues this run; secrets are redacted in it."""
        if self._arguments is None:
            settings = {"run": {"dir": str(self._dir), "name": self.name}, "resume": "auto"}
            code = (
                "import yaml; from lmft import api; "
                f"config = yaml.safe_load(open({str(self.paths.config)!r})); "
                f"api.train(config | {settings})"
            )
            return shlex.join(["python", "-c", code])
        # The continued run takes its own newest checkpoint, even if it was started from another one.
        replaced = ["run.name"]
        if not is_branch(self._config):  # a branch takes its own newest checkpoint in any case
            replaced.append("resume")
        kept = [argument for argument in self._arguments if argument.partition("=")[0] not in replaced]
        arguments = [*map(self._redactor.argument, kept), assignment("run.name", self.name)]
        return shlex.join(["python", "-m", "lmft.train", *arguments])

    def status(self) -> str | None:
        """Return the status of an earlier run of this name; None if there was none."""
        if self._given_name is None:
            return None
        return self.paths.status()

    @property
    def choices(self) -> Mapping[str, str | None]:
        """Group -> name of its YAML; empty if they are not known."""
        return self._choices

    @property
    def arguments(self) -> list[str] | None:
        """The command line, without secrets; None if Python code has begun the run."""
        if self._arguments is None:
            return None
        return [self._redactor.argument(argument) for argument in self._arguments]

    @property
    def config(self) -> Mapping[str, Any]:
        """The config, with its secrets."""
        return self._config

    @property
    def has_begun(self) -> bool:
        """True once `begin` has written the run's first files."""
        return self._has_begun

    def redacted_argument(self, argument: str) -> str:
        """Return an argument of a command line without its secrets."""
        return self._redactor.argument(argument)

    def redacted(self, value: Any) -> Any:
        """Return plain data without the secrets of the config and of the environment."""
        return self._redactor.value(value)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json. Infinity and NaN become null."""
        if self._writes:
            write_json(self.paths.metrics, self._redactor.value(dict(metrics)))
            self._metrics_written = True

    def record_pending_export(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json before the export, so that a failed export can be completed."""
        if self._writes:
            pending = {**metrics, "status": "failed", "export_pending": True}
            write_json(self.paths.metrics, self._redactor.value(pending))

    def begin(self) -> bool:
        """Write the run's first files, and delete temporary files of crashed processes.

        Only the first call on rank 0 does so. Returns: whether this was that call.
        """
        if self._has_begun or not self._writes:
            return False
        self._has_begun = True
        self._opened_folder.keep()
        files.remove_leftovers(self.folder)
        checkpoints.remove_leftovers(self.paths.checkpoints)
        if self.parent is not None:
            self.parent.write(self.paths)
        text = yaml.safe_dump(self._redactor.value(self._config), sort_keys=False, allow_unicode=True)
        files.write_text(self.paths.config, text)
        files.write_text(self.paths.command, f"# {this_process()}\n{self.command}\n")
        if self.facts is not None:
            write_json(self.paths.facts, self._redactor.value(self.facts))
        return True

    def check_settings(self) -> None:
        """Refuse early if the run to continue was trained with other settings. Raises: UserError."""
        check_folder(self.paths, self.name, self._config)
        continued = self._continued()
        if continued is not None and continued.is_run():
            recorded = recorded_settings(continued)
            if isinstance(recorded, Mapping):
                is_own = continued.path == self.folder
                check = check_bound_of_branch if self._is_branch and not is_own else check_bound
                check(recorded, self._redactor.value(self._config), continued.config)

    @property
    def kept_tokenizer(self) -> Path:
        """The folder with the vocabulary that was trained for this run, or for its parent; it may be
        missing.

        Raises: UserError if a branch's vocabulary would be trained again.
        """
        if not self._is_branch or self.paths.tokenizer.is_dir():
            return self.paths.tokenizer
        kept = folder_of(Path(str(self._config["resume"]))).tokenizer
        if self._config["model"]["tokenizer"]["train"] and not kept.is_dir():
            what = "the parent's vocabulary was trained for it, and its folder is missing"
            raise UserError(what, str(kept), "resume=RUN names the parent's whole folder")
        return kept

    @property
    def _is_branch(self) -> bool:
        return is_branch(self._config)

    def _continued(self) -> RunFolder | None:
        """Return the run whose checkpoint this one resumes from.

        None if there is none, or its folder has no name yet.
        """
        resume = str(self._config["resume"])
        has_trained = self.status() == "complete" or any(self.paths.checkpoints.glob("*.ckpt"))
        is_own = self._given_name is not None and has_trained
        if is_own and self._is_branch:
            return self.paths
        if resume in ("auto", "must", "never"):
            return self.paths if is_own else None
        return folder_of(Path(resume))

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            if self._writes:
                folder = OpenedFolder(self.paths, self._given_name is not None, self._redactor)
                self._opened_folder = opening.enter_context(folder)
                self.paths = folder.paths
            elif self._given_name is None:
                what = "a run on several processes needs a name"
                raise UserError(what, fix="add run.name=NAME")
            check_folder(self.paths, self.name, self._config)
            self.parent = recorded_parent(self.paths)
            resume = str(self._config["resume"])
            if self._is_branch:
                self.checkpoint = newest_checkpoint(self.paths)
            else:
                self.checkpoint = checkpoint_to_resume(self.paths, self.name, resume)
            if self.checkpoint is not None:
                from lmft.runs.checkpoint_io import settings_of

                recorded = settings_of(self.checkpoint)
                settings = self._redactor.value(self._config)
                check_bound(recorded, settings, self.checkpoint)
                log.info("resuming from %s", self.checkpoint)
                log_changes(recorded, settings, self.checkpoint)
            elif self._is_branch:
                self._begin_branch(checkpoint_at(Path(resume)))
            if self._writes:
                os.environ[_NAME_VARIABLE] = self.name
                opening.callback(os.environ.pop, _NAME_VARIABLE, None)
            self._opened = opening.pop_all()
        return self

    def _begin_branch(self, checkpoint: Path) -> None:
        """Begin from another run's checkpoint. Raises: UserError if what it must keep has changed."""
        from lmft.runs.checkpoint_io import settings_of, step_of

        recorded = settings_of(checkpoint)
        settings = self._redactor.value(self._config)
        check_bound_of_branch(recorded, settings, checkpoint)
        self.origin = checkpoint
        self.parent = parent_of(checkpoint, recorded, step_of(checkpoint))
        log.info("a branch of %s, from %s", self.parent, checkpoint)
        log_changes(recorded, settings, checkpoint, "other than in its parent")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Stopped):
            error.command = self.command
        with self._opened:
            if error is None or not self._writes:
                return
            is_fault = isinstance(error, Exception) and not isinstance(error, UserError)
            if not self.folder.exists():
                if is_fault:
                    fix = "repeat the command to start again"
                    raise UserError("the run's folder is gone", str(self.folder), fix) from error
                return
            if not self._has_begun and not is_fault:
                return  # leaving `_opened` undoes everything
            self._opened_folder.keep_log()
            startup_names = {path.name for path in self.paths.startup_files}
            if isinstance(error, UserError) and startup_names.issuperset(visible_names(self.folder)):
                self._opened_folder.undo_if_new()
                return
            self._log_end(error)
            if not self._has_begun and not self._opened_folder.is_new:
                return  # a bug; no file of the earlier run has been changed yet
            self._opened_folder.keep()
            if not self._metrics_written:
                status = "failed" if isinstance(error, Exception) else "stopped"
                self._write_end(status, error)
                self._write_report(status)

    def _log_end(self, error: BaseException) -> None:
        """Write the error to train.log only; the command line reports it to the user."""
        record: dict[str, Any] = {
            "name": __name__,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": str(error),
        }
        if not isinstance(error, Stopped):
            record |= {"levelno": logging.ERROR, "levelname": "ERROR", "msg": "the run ended early"}
            record["exc_info"] = (type(error), error, error.__traceback__)
        self._opened_folder.log_file.handle(logging.makeLogRecord(record))

    def _write_end(self, status: str, error: BaseException) -> None:
        try:
            metrics = {**read_json(self.paths.metrics), "status": status}
            if self.parent is not None:
                metrics["parent"] = self.parent.record()
            if status == "stopped":
                metrics["command"] = self.command
            else:
                metrics["error"] = one_line(error)
            self.write_metrics(metrics)
        except OSError as failure:  # the run's own error matters more, and may be the full disk
            log.warning("%s could not be written: %s", self.paths.metrics, failure.strerror)

    def _write_report(self, status: str) -> None:
        """Write the report of a run that has ended early, whose own error matters more than this."""
        if not self._has_begun:
            return
        try:
            write_report(self.paths, self.name, status)
        except Exception as failure:
            log.warning("%s could not be written: %s", self.paths.report, failure, exc_info=True)
