"""One job of a sweep: its config composed again, its folder named, its end told to the sweep.

A job can be pickled, so that a launcher can run it in another process.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from lmft.cli import help
from lmft.cli.job_end import Outcome
from lmft.cli.sweep import Sweep
from lmft.cli.sweep_folder import job_name
from lmft.cli.sweep_secrets import revealed
from lmft.config import contradictions, grammar, hydra_config, load
from lmft.config.grammar import parse
from lmft.config.hydra_config import OF_SWEEPS, choices_of
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.load import Job
from lmft.config.sources import Sources
from lmft.runs.redaction import Redactor

Task = Callable[[Job], float | None]
_OF_SWEEPS = ("hydra.mode", "hydra.launcher", "hydra/launcher", "hydra.sweeper", "hydra/sweeper")

# Functions that conf/hydra/lmft.yaml calls.
OmegaConf.register_new_resolver("lmft.choices", help.choices, replace=True)
OmegaConf.register_new_resolver("lmft.usage", help.usage, replace=True)
OmegaConf.register_new_resolver("lmft.job_name", job_name, replace=True)


@dataclass(frozen=True)
class SweepJob:
    """The function that a launcher calls with each composed config of a sweep."""

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
        redactor = Redactor({"config": _as_far_as_resolvable(composed)})
        with self.sweep.attempt(folder, number, redactor, record):
            return self.task(self._job(self._with_choices(composed), folder))
        return math.nan

    @property
    def _hydra_overrides(self) -> list[str]:
        """The arguments for Hydra that a job needs, too: those that are not about sweeps."""
        given = map(parse, self.command_line)
        return [
            revealed(str(override.input_line))
            for override in given
            if override.is_hydra_override() and not override.key_or_group.startswith(_OF_SWEEPS)
        ]

    def _with_choices(self, composed: DictConfig) -> DictConfig:
        """Return the job's config, composed again with the choices that its own values imply."""
        given = _typed_overrides()
        completed = implied_end(given)
        if self.sources.name is None:  # a YAML named by --config-name makes its own choices
            completed = implied_choices(completed, ask_hub=True)
        if completed == given:
            return composed
        global_hydra = GlobalHydra.instance()
        hydra_of_sweep = global_hydra.hydra
        global_hydra.clear()
        try:
            completed = [*self._hydra_overrides, *completed]
            composed = hydra_config.composed(completed, self.command, self.sources)
        finally:
            global_hydra.hydra = hydra_of_sweep
        before = HydraConfig.get()
        with open_dict(composed.hydra), read_write(composed.hydra):
            composed.hydra.runtime.output_dir = before.runtime.output_dir
            composed.hydra.job.num = before.job.num
            composed.hydra.job.id = before.job.id
        HydraConfig.instance().set_config(composed)
        return composed

    def _job(self, composed: DictConfig, folder: Path) -> Job:
        arguments = [*self.sources.arguments, *self._hydra_overrides, *_typed_overrides()]
        job = single_job(composed, arguments, self.command_line)
        if self.sweep.has_runs:
            name = f"{self.sweep.folder.name}/{folder.name}"
            job.config["run"] = {**job.config["run"], "dir": str(self.sweep.folder.parent), "name": name}
            job.arguments.append(grammar.assignment("run.name", name))
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


def _typed_overrides() -> list[str]:
    """Return the job's overrides as they were typed, with unresolved interpolations."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [revealed(str(override)) for override in typed if not _is_of_sweep(str(override))]


def _is_of_sweep(override: str) -> bool:
    """Return whether an argument is for the sweep alone: a job that is continued has no launcher."""
    return parse(override).key_or_group in OF_SWEEPS


def _as_far_as_resolvable(config: DictConfig) -> Any:
    """Return a config as plain data; with its interpolations if one of them cannot be resolved."""
    try:
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException:  # reported when the job's config is read
        return OmegaConf.to_container(config)
