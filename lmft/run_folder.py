"""A run's folder: what lies where, how it is named, what can be read from it.

runs/<name>/  config.yaml  command.txt  train.log  metrics.csv  metrics.json  samples.jsonl  report.html
              checkpoints/ (last.ckpt, best.ckpt, step=N.ckpt)  model/ (Hugging Face folder)
"""

import json
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lmft import checkpoint_files, durable
from lmft.errors import UserError, did_you_mean

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
    def of_an_attempt(self) -> list[Path]:
        """What is there before anything has been trained."""
        return [self.config, self.command, self.log, self.metrics_csv, self.samples, self.tokenizer]

    def is_run(self) -> bool:
        """Whether a run has been here."""
        return self.config.is_file()

    def status(self) -> str | None:
        """`complete`, `stopped` or `failed`; None before the run has ended for the first time."""
        return read_json(self.metrics).get("status")

    def newest_checkpoint(self) -> Path | None:
        """Where the run goes on; None if it has saved nothing. Reads the file, and compares its checksum.

        Says in the log which broken ones were passed over. Raises: UserError if all are broken.
        """
        newest, wrong = checkpoint_files.newest_valid(self.checkpoints)
        if newest is None and wrong:
            fix = "resume=PATH of another checkpoint and another run.name, or another run.name alone to begin anew"
            raise UserError(f"no checkpoint is whole: {'; '.join(wrong)}", str(self.checkpoints), fix)
        if newest is not None and wrong:
            log.warning("%s; going on from %s", "; ".join(wrong), newest.name)
        elif newest is not None and newest.name != checkpoint_files.LAST:
            log.warning("%s is missing; going on from %s", checkpoint_files.LAST, newest.name)
        return newest


def checked_name(name: str) -> str:
    """`name`, if it names a folder inside the folder of runs, or a job's folder inside a sweep's. Raises: UserError."""
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
        raise UserError(f"cannot make the folder {folder}: {error.strerror}", "run.dir and run.name") from error


def new_folder(folder: Path) -> Path:
    """Makes `folder`, or `folder-2`, `folder-3`…: the first that is not there. No two processes get the same one."""
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


def config_to_use(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config to use a trained model with: `recorded_config` of the folder `run`, if given; else `config` itself.

    Raises: UserError if neither a run nor a model is named.
    """
    if config["run"] is not None:
        return recorded_config(Path(str(config["run"])), config, overrides)
    if config["model"]["name_or_path"] is None:
        raise UserError("which model?", fix="add run=runs/NAME, or model.name_or_path=FOLDER_OR_HUB_ID")
    return dict(config)


def recorded_config(path: Path, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The config to use the finished run in folder `path` with.

    It is the run's own, but the model is the trained one; device, cache, callbacks and loggers are those of `config`,
    and so is every key that `overrides` names: `data=wikitext2` takes the whole group, `data.batch_size=8` one value.

    Args:
        path: the run's folder.
        config: what the command line of now led to.
        overrides: the `key=value` arguments of that command line.

    Raises: UserError if there is no run or no trained model.
    """
    run = existing_run(path)
    if not run.model.is_dir():
        fix = f"finish it with the command in {run.command}"
        raise UserError(f"the run has no model yet (status: {run.status() or 'unfinished'})", str(path), fix)
    recorded: dict[str, Any] = yaml.safe_load(run.config.read_text("utf-8"))
    trained = {"name_or_path": str(run.model), "from_scratch": False, "freeze": []}
    trained["lora"] = {**recorded["model"].get("lora", {}), "r": 0}
    if not (run.model / "adapter_config.json").exists():  # adapters alone: their base is loaded as it was for training
        trained["config"] = {}
        if not recorded["model"].get("trust_remote_code"):  # whose code keeps to its revision
            trained["revision"] = None
    tokenizer = {**recorded["model"]["tokenizer"], "name_or_path": str(run.model), "train": False}
    recorded["model"] = {**recorded["model"], **trained, "tokenizer": tokenizer}
    of_now = [key for key in config if key not in recorded] + [
        "run",
        "trainer",
        "callbacks",
        "logger",
        "trust",
        "model.trust_remote_code",
        "data.cache_dir",
    ]
    for key in [*of_now, *(override.lstrip("+~").partition("=")[0] for override in overrides)]:
        _copy_value(key.split("."), config, recorded)
    return recorded


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} if there is no file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that at every moment is either the old one or the new one, whole. Infinity and NaN become null."""
    durable.write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _copy_value(key: Sequence[str], source: Mapping[str, Any], target: dict[str, Any]) -> None:
    """Makes the value at `key` in `target` what it is in `source`; it is left alone if `source` has none."""
    for part in key[:-1]:
        if part not in source:
            return
        source, target = source[part], target.setdefault(part, {})
    if key[-1] in source:
        target[key[-1]] = source[key[-1]]
