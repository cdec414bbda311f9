"""A run's folder: its files, its name, and its status.

runs/<name>/  config.yaml  command.txt  facts.json  train.log  metrics.csv  metrics.json  samples.jsonl
              report.html  details.json  measurements/ (before.npz, best.npz, last.npz)
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
from lmft.system.urls import path_of, storage_of

log = logging.getLogger(__name__)
_AVERAGE = "average:"
_MOST_LISTED = 8  # runs named in a message
# One folder, or a sweep's folder and a job's.
_NAME = re.compile(r"[^\W_][\w.,=+@-]*(/[^\W_][\w.,=+@-]*)?")


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files."""

    path: Path

    @property
    def config(self) -> Path:
        """YAML: resolved, secrets redacted."""
        return self.path / "config.yaml"

    @property
    def command(self) -> Path:
        """The latest process of the run, and the command that continues it."""
        return self.path / "command.txt"

    @property
    def log(self) -> Path:
        """The log, with times."""
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
    def facts(self) -> Path:
        """JSON: what is known before the first step: parameters, steps, disk, warnings."""
        return self.path / "facts.json"

    @property
    def setup(self) -> Path:
        """JSON: versions, and what happened to the text, known before the first step."""
        return self.path / "setup.json"

    @property
    def example(self) -> Path:
        """JSON: the first training example, with what its objective hides and predicts."""
        return self.path / "example.json"

    @property
    def details(self) -> Path:
        """JSON: losses before and after by document, token, frequency, position and length."""
        return self.path / "details.json"

    @property
    def parent(self) -> Path:
        """JSON: the run, step and checkpoint that a branch began from; only branches have it."""
        return self.path / "parent.json"

    @property
    def samples(self) -> Path:
        """JSON lines: answers to the probes."""
        return self.path / "samples.jsonl"

    @property
    def loggers(self) -> Path:
        """JSON: each logger's record, and how far it has got."""
        return self.path / "loggers.json"

    @property
    def spikes(self) -> Path:
        """JSON: the spikes of the loss from which training went back, and the steps it left out."""
        return self.path / "spikes.json"

    @property
    def measurements(self) -> Path:
        """Folder of the sums that details.json is made of: before.npz, best.npz, last.npz."""
        return self.path / "measurements"

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
        """Folder of the vocabulary, if one was trained for the run."""
        return self.path / "tokenizer"

    @property
    def model(self) -> Path:
        """Hugging Face folder."""
        return self.path / "model"

    @property
    def startup_files(self) -> list[Path]:
        """The files that exist before the first optimizer step."""
        logs = [self.log, self.metrics_csv, self.samples, self.loggers]
        told = [self.facts, self.setup, self.example, self.details, self.report]
        return [self.config, self.command, self.parent, *told, *logs, self.tokenizer, self.measurements]

    def has_pending_export(self) -> bool:
        """Return whether the run is trained, and its export has failed."""
        return bool(read_json(self.metrics).get("export_pending"))

    def is_run(self) -> bool:
        """Return whether a run has used the folder."""
        return self.config.is_file()

    def status(self) -> str | None:
        """Return `complete`, `stopped` or `failed`; None before the run has ended for the first time."""
        return read_json(self.metrics).get("status")

    def checkpoints_named(self, which: Any) -> list[Path]:
        """Return the files of `best`, `last`, a step, or `average:K`: the newest K step=N.ckpt.

        Raises: UserError, listing what exists.
        """
        is_average = isinstance(which, str) and which.startswith(_AVERAGE)
        paths = self._newest(which) if is_average else [self._checkpoint(which)]
        for path in paths:
            if reason := checkpoints.why_invalid(path):
                what = f"{path} is broken ({reason})"
                raise UserError(what, f"checkpoint={which}", "name another one")
        return paths

    def _checkpoint(self, which: Any) -> Path:
        named = ("best", "last")
        has_name = which in (*named, checkpoints.EXPORTED_NAME)
        name = f"{which}.ckpt" if has_name else f"step={which}.ckpt"
        path = self.checkpoints / name
        if not path.is_file():
            names = [name for name in named if (self.checkpoints / f"{name}.ckpt").is_file()]
            names += [path.name[5:-5] for path in checkpoints.checkpoints_by_step(self.checkpoints)]
            fix = f"checkpoint= one of: {', '.join(names)}" if names else None
            raise UserError(f"the run has no checkpoint '{which}'", str(self.checkpoints), fix)
        return path

    def _newest(self, which: str) -> list[Path]:
        """Return the newest K checkpoints of `average:K`, oldest first."""
        number = which.removeprefix(_AVERAGE)
        if not number.isdecimal() or not int(number):
            raise UserError(f"checkpoint={which} names no number of checkpoints", fix="average:3")
        kept = checkpoints.checkpoints_by_age(self.checkpoints)
        if len(kept) < int(number):
            what = f"the run has kept {len(kept)} checkpoints, fewer than {number}"
            fix = f"checkpoint.keep_last={number} of a training keeps as many"
            if len(kept) > 1:
                fix = f"checkpoint=average:{len(kept)}; {fix}"
            raise UserError(what, str(self.checkpoints), fix)
        return kept[-int(number) :]


def checked_dir(folder: Any) -> Path:
    """Return the folder of runs, `run.dir`, if it is on a disk. Raises: UserError."""
    if storage := storage_of(str(folder)):
        what = f"a run is written to a disk, and {storage}:// is other storage"
        raise UserError(what, f"run.dir={folder}", "run.dir=FOLDER; copy the run when it is complete")
    return Path(path_of(str(folder)))


def checked_name(name: str) -> str:
    """Return `name` if it names a folder in `run.dir`, or a job's folder in a sweep's.

    Raises: UserError.
    """
    if not _NAME.fullmatch(name):
        fix = (
            "begin with a letter or digit, continue with letters, digits and . , = + @ - _; "
            "one / separates a sweep from its job"
        )
        raise UserError(f"{name!r} cannot be a run's name", "run.name", fix)
    return name


def default_name(choices: Mapping[str, str | None]) -> str:
    """Return <model>-<data>-<time>, after the chosen YAMLs."""
    words = [choices.get("model"), choices.get("data"), time.strftime("%Y%m%d-%H%M%S")]
    return re.sub(r"[^\w.-]+", "-", "-".join(word for word in words if word))


def make_folder(folder: Path, may_exist: bool = True) -> None:
    """Make `folder` and its parents. Raises: UserError; FileExistsError if it exists and may not."""
    try:
        folder.mkdir(parents=True, exist_ok=may_exist)
    except OSError as error:
        if isinstance(error, FileExistsError) and not may_exist:
            raise
        what = f"cannot make the folder {folder}: {error.strerror}"
        raise UserError(what, "run.dir and run.name") from error


def new_folder(folder: Path) -> Path:
    """Make `folder`, or `folder-2`, `folder-3`…, whichever does not exist; atomic between processes."""
    number = 1
    candidate = folder
    while True:
        try:
            make_folder(candidate, may_exist=False)
        except FileExistsError:
            number += 1
            candidate = folder.with_name(f"{folder.name}-{number}")
        else:
            return candidate


def missing_folders(folder: Path) -> list[Path]:
    """Return those of `folder` and its parents that do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def remove_empty(folders: Sequence[Path]) -> None:
    """Delete `folders`, the innermost first, until one is not empty."""
    for folder in folders:
        if folder.exists():
            if any(folder.iterdir()):
                return
            folder.rmdir()


def runs_in(folder: Path) -> list[str]:
    """Return the names of the runs in a folder of runs, including the jobs of sweeps, newest first."""
    found = sorted([*folder.glob("*/config.yaml"), *folder.glob("*/*/config.yaml")])
    configs = [config for config in found if not config.parent.is_symlink()]  # a sweep's `best` is one
    configs.sort(key=lambda config: config.stat().st_mtime_ns, reverse=True)
    return [config.parent.relative_to(folder).as_posix() for config in configs]


def existing_run(path: Path) -> RunFolder:
    """Return the run in folder `path`. Raises: UserError, listing the newest runs there are."""
    run = RunFolder(path)
    if run.is_run():
        return run
    if runs := runs_in(path):
        kind = "a sweep" if (path / "sweep.csv").exists() else "a folder of runs"
        raise UserError(f"{path} is {kind}, not a run", fix=f"name one of: {_listed(runs, path)}")
    runs = runs_in(path.parent)
    listed = f"runs there: {_listed(runs, path.parent)}" if runs else None
    folder = path.as_posix().removesuffix(path.name)
    raise UserError(f"no run in {path}{did_you_mean(path.name, runs, folder)}", fix=listed)


def _listed(names: Sequence[str], folder: Path) -> str:
    """Return the paths of the first runs of a folder, and how many more there are."""
    listed = ", ".join((folder / name).as_posix() for name in names[:_MOST_LISTED])
    if len(names) > _MOST_LISTED:
        listed += f" and {len(names) - _MOST_LISTED} more"
    return listed
