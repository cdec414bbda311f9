"""One job of a sweep: its config composed again, its folder named, its end told to the sweep.

A job can be pickled, so that a launcher can run it in another process.
"""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lmft.cli.sweep import Outcome, Sweep
from lmft.config import contradictions, load, overrides
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.load import Job, choices_of
from lmft.config.sources import Sources
from lmft.runs.redaction import Redactor

Task = Callable[[Job], float | None]


@dataclass(frozen=True)
class SweepJob:
    """What a launcher calls with each composed config of a sweep."""

    command: str
    task: Task
    sweep: Sweep
    sources: Sources
    command_line: list[str]

    @property
    def __wrapped__(self) -> Task:
        """The command's task, whose module's name is Hydra's name of the job."""
        return self.task

    def __call__(self, composed: DictConfig) -> float | None:
        """Run the job in this process; tell its end to the sweep."""
        return self.run(composed, self.sweep.record)

    def run(self, composed: DictConfig, record: Callable[[Outcome], None]) -> float | None:
        """Run the job; give its end to `record`.

        Returns: the value that a sweeper minimises; NaN if the job failed.
        """
        folder = Path(HydraConfig.get().runtime.output_dir)
        number = HydraConfig.get().job.num + 1
        redactor = Redactor({"config": OmegaConf.to_container(composed)})
        with self.sweep.attempt(folder, number, redactor, record):
            composed = _with_choices_of_job(composed, self.command, self.sources)
            return self.task(self._job(composed, folder))
        return math.nan

    def _job(self, composed: DictConfig, folder: Path) -> Job:
        arguments = [*self.sources.arguments, *_typed_overrides()]
        job = single_job(composed, arguments, self.command_line)
        if self.sweep.has_runs:
            name = Path(os.path.relpath(folder, job.config["run"]["dir"])).as_posix()
            job.config["run"]["name"] = name
            job.arguments.append(overrides.assignment("run.name", name))
        # A trainer that starts processes passes them these arguments: of this job, not of the sweep.
        sys.argv[1:] = job.arguments
        return job


def single_job(composed: DictConfig, argv: list[str], command_line: Sequence[str]) -> Job:
    """Return the job of a composed config.

    Args:
        composed: its config.
        argv: its own arguments.
        command_line: the process's arguments, which alone can trust further classes.

    Raises: UserError.
    """
    typed = _typed_overrides()
    plain = load.plain(composed, command_line)
    if not isinstance(plain.get("run"), str):  # otherwise most options are those of the run
        contradictions.check(plain, typed)
    return Job(plain, choices_of(HydraConfig.get()), typed, argv)


@config_errors_are_user_errors()
def implied_choices(given: list[str], ask_hub: bool) -> list[str]:
    """Return the overrides with the choices that their values imply. Raises: UserError."""
    return with_implied_choices(given, ask_hub)


@config_errors_are_user_errors()
def implied_end(given: list[str]) -> list[str]:
    """Return the overrides with the end of training that they imply. Raises: UserError."""
    return with_implied_end(given)


def _with_choices_of_job(composed: DictConfig, command: str, sources: Sources) -> DictConfig:
    """Return the config of a sweep's job, composed again with the choices that its own values imply."""
    given = _typed_overrides()
    completed = implied_choices(implied_end(given), ask_hub=True)
    if completed == given:
        return composed
    global_hydra = GlobalHydra.instance()
    hydra_of_sweep = global_hydra.hydra
    global_hydra.clear()
    try:
        composed = load.composed(completed, command, sources)
    finally:
        global_hydra.hydra = hydra_of_sweep
    HydraConfig.instance().set_config(composed)
    return composed


def _typed_overrides() -> list[str]:
    """Return the job's overrides as they were typed, with unresolved interpolations."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [str(override) for override in typed]
