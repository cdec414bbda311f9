"""Searches whose trainings are a formula: a launcher that runs their trials in this process."""

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf

from lmft.config.grammar import parse
from lmft.config.shipped import defaults_of
from lmft.runs.folder import RunFolder
from lmft.runs.lock import locked
from lmft.sweeps.config import SweepConfig
from lmft.sweeps.journal import JOURNAL, STUDY, open_journal
from lmft.sweeps.trials import run_trials
from lmft.system.files import read_json, write_json

Formula = Callable[[Mapping[str, Any]], float]
STEPS = "steps.txt"
"""A trial's steps, as its training has made them: a line each, with the number of the process."""


def options(**values: Any) -> SweepConfig:
    """The options of a search, of which some are given."""
    return SweepConfig(**{**defaults_of("sweep"), **values})


def quadratic(values: Mapping[str, Any]) -> float:
    """Its minimum, 0, is at x = 0.3, y = -0.6."""
    return (values["x"] - 0.3) ** 2 + (values["y"] + 0.6) ** 2


class Launcher:
    """Trains each trial in this process, in five steps of which a repeated training makes those that are left."""

    def __init__(self, formula: Formula = quadratic, nap: float = 0.0):
        self.formula = formula
        self.nap = nap  # seconds of a step
        self.launched: list[list[list[str]]] = []

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.launched.append([list(job) for job in jobs])
        return [self._train(job) for job in jobs]

    def _train(self, job: Sequence[str]) -> Any:
        given = {override.key_or_group: override.value() for override in map(parse, job)}
        folder = self.folder / str(given["hydra.sweep.subdir"])
        folder.mkdir(exist_ok=True)
        with locked(RunFolder(folder)):
            steps = folder / STEPS
            for step in range(len(lines(steps)), 5):
                time.sleep(self.nap)
                with steps.open("a") as file:
                    file.write(f"{step} {os.getpid()}\n")
            try:
                loss = self.formula(given)
            except Exception as error:  # as a job of the command does
                write_json(folder / "metrics.json", {"status": "failed", "error": str(error)})
                return SimpleNamespace(return_value=math.nan)
            train = {"seconds": 10 - loss, "peak_memory_gb": 1.0}
            write_json(folder / "metrics.json", {"status": "complete", "exported": {"loss": loss}, "train": train})
        return SimpleNamespace(return_value=loss)


def search(folder: Path, *arguments: str, launcher: Launcher | None = None, **values: Any) -> optuna.Study:
    """A search in a folder, to its end; `values` are options of sweep. Returns the study."""
    launcher = launcher or Launcher()
    launcher.folder = folder  # pyright: ignore[reportAttributeAccessIssue]
    folder.mkdir(parents=True, exist_ok=True)
    config: DictConfig = OmegaConf.create(
        {"sweep": {**defaults_of("sweep"), **values}, "hydra": {"sweep": {"dir": str(folder)}}}
    )
    given = [parse(argument) for argument in (*arguments, "sweep=optuna")]
    run_trials(launcher, config, {}, given)  # pyright: ignore[reportArgumentType]
    return study_of(folder)


def study_of(folder: Path) -> optuna.Study:
    """What the journal of a sweep's folder holds."""
    return optuna.load_study(study_name=STUDY, storage=open_journal(folder / JOURNAL))


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def trial_folders(folder: Path) -> list[Path]:
    """The run folders of the trials that were begun, by number."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "best")))


def forked(work: Callable[[], Any]) -> int:
    """The process that does this work; its exit code is 0 if it ends well."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def metrics(folder: Path) -> dict[str, Any]:
    return read_json(folder / "metrics.json")
