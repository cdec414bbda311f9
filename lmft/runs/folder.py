"""A run's folder: what lies where, how it is named, what can be read from it.

runs/<name>/  config.yaml  command.txt  train.log  metrics.csv  metrics.json  samples.jsonl  report.html
              checkpoints/ (last.ckpt, best.ckpt, step=N.ckpt)  model/ (Hugging Face folder)
"""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.errors import UserError, did_you_mean
from lmft.runs import checkpoints
from lmft.system.files import read_json

log = logging.getLogger(__name__)
_NAME = re.compile(r"[^\W_][\w.,=+@-]*(/[^\W_][\w.,=+@-]*)?")  # one folder, or a sweep's folder and a job's


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what."""

    path: Path

    @property
    def config(self) -> Path:
        """YAML: resolved, secrets redacted."""
        return self.path / "config.yaml"

    @property
    def command(self) -> Path:
        """Which process had the run last, and the command that continues it."""
        return self.path / "command.txt"

    @property
    def log(self) -> Path:
        """What was logged, with times."""
        return self.path / "train.log"

    @property
    def metrics_csv(self) -> Path:
        """A row every few steps."""
        return self.path / "metrics.csv"

    @property
    def metrics(self) -> Path:
        """JSON: how the run ended, and its numbers before and after."""
        return self.path / "metrics.json"

    @property
    def samples(self) -> Path:
        """JSON lines: answers to the probes."""
        return self.path / "samples.jsonl"

    @property
    def report(self) -> Path:
        """The run on one page."""
        return self.path / "report.html"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """Folder of the vocabulary, where one was trained for the run."""
        return self.path / "tokenizer"

    @property
    def model(self) -> Path:
        """Hugging Face folder."""
        return self.path / "model"

    @property
    def startup_files(self) -> list[Path]:
        """What is there before anything has been trained."""
        return [self.config, self.command, self.log, self.metrics_csv, self.samples, self.tokenizer]

    def is_run(self) -> bool:
        """Whether a run has been here."""
        return self.config.is_file()

    def status(self) -> str | None:
        """`complete`, `stopped` or `failed`; None before the run has ended for the first time."""
        return read_json(self.metrics).get("status")

    def checkpoint(self, which: Any) -> Path:
        """The file of `best`, `last`, or an optimizer step. Raises: UserError, which lists those there are."""
        name = f"{which}.ckpt" if which in ("best", "last") else f"step={which}.ckpt"
        path = self.checkpoints / name
        if not path.is_file():
            steps = [each.name[5:-5] for each in checkpoints.checkpoints_by_step(self.checkpoints)]
            names = [each for each in ("best", "last") if (self.checkpoints / f"{each}.ckpt").is_file()]
            known = f"checkpoint= one of: {', '.join([*names, *steps])}" if names or steps else None
            raise UserError(f"the run has no checkpoint '{which}'", str(self.checkpoints), known)
        if found := checkpoints.why_invalid(path):
            raise UserError(f"{path} is broken ({found})", f"checkpoint={which}", "name another one")
        return path


def checked_name(name: str) -> str:
    """`name`, if it names a folder inside the folder of runs, or a job's folder inside a sweep's. Raises:
    UserError.
    """
    if not _NAME.fullmatch(name):
        fix = "begin with a letter or digit; go on with these and . , = + @ - _; one / parts a sweep from its job"
        raise UserError(f"{name!r} cannot be a run's name", "run.name", fix)
    return name


def default_name(choices: Mapping[str, str | None]) -> str:
    """<model>-<data>-<time>, after the YAMLs chosen."""
    parts = [choices.get("model"), choices.get("data"), time.strftime("%Y%m%d-%H%M%S")]
    return re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part))


def make_folder(folder: Path, may_exist: bool = True) -> None:
    """Makes `folder` and its parents. Raises: UserError, and FileExistsError if it may not exist and does."""
    try:
        folder.mkdir(parents=True, exist_ok=may_exist)
    except OSError as error:
        if isinstance(error, FileExistsError) and not may_exist:
            raise
        raise UserError(
            f"cannot make the folder {folder}: {error.strerror}", "run.dir and run.name"
        ) from error


def new_folder(folder: Path) -> Path:
    """Makes `folder`, or `folder-2`, `folder-3`…: the first that is not there. No two processes get the same
    one.
    """
    number, candidate = 1, folder
    while True:
        try:
            make_folder(candidate, may_exist=False)
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
        else:
            return candidate


def missing_folders(folder: Path) -> list[Path]:
    """Of `folder` and its parents those that are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Removes `folders`, the innermost first, up to one that holds something."""
    for folder in folders:
        if folder.exists():
            if any(folder.iterdir()):
                return
            folder.rmdir()


def runs_in(folder: Path) -> list[str]:
    """Names of the runs in a folder of runs, jobs of sweeps among them."""
    configs = sorted([*folder.glob("*/config.yaml"), *folder.glob("*/*/config.yaml")])
    return [config.parent.relative_to(folder).as_posix() for config in configs]


def existing_run(path: Path) -> RunFolder:
    """The run in folder `path`. Raises: UserError, which lists the runs there are."""
    run = RunFolder(path)
    if run.is_run():
        return run
    runs = [(path.parent / name).as_posix() for name in runs_in(path.parent)]
    listed = f"runs there: {', '.join(runs[-8:])}" if runs else None
    raise UserError(f"no run in {path}{did_you_mean(path.as_posix(), runs)}", fix=listed)
