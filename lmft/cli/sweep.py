"""Run a sweep: a job for each combination of values, each in its own folder.

The terminal shows a line for each job when it ends, and a table of all jobs at the end.
"""

import logging
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lmft.cli import grid
from lmft.cli.job_end import Outcome, failure_of, logged_only
from lmft.cli.sweep_folder import make_sweep_folder, remove_hydra_record
from lmft.cli.sweep_live import LiveTable
from lmft.cli.sweep_secrets import has_secret
from lmft.cli.sweep_table import report
from lmft.config.grammar import assignment, parse, quoted
from lmft.config.hydra_config import hydra_node_of
from lmft.config.hydra_errors import config_errors_are_user_errors, target_errors_are_user_errors
from lmft.errors import UserError, as_user_error, one_line
from lmft.runs.folder import RunFolder, checked_dir, missing_folders, remove_empty
from lmft.runs.redaction import Redactor
from lmft.sweeps.checks import is_search, num_trials
from lmft.system.files import read_json, write_json

log = logging.getLogger(__name__)

LinkBest = Callable[[Path], Path | None]
"""Given a sweep's folder, links its best run there and returns its folder; None: there is no run."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, and the overrides that make Hydra use it."""

    folder: Path
    created: list[Path]
    """The folder and those of its parents that did not exist before."""
    has_runs: bool
    hydra_overrides: list[str]
    num_jobs: int | None
    """None if the sweeper decides that while it runs."""
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Job -> status, error and exit code, for each job that failed in this sweep."""
    live: LiveTable = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "live", LiveTable(self.folder, self.num_jobs))

    @staticmethod
    def check_has_one_folder(first: DictConfig, last: DictConfig) -> None:
        """Check that the first and the last job name the same folder. Raises: UserError."""
        OmegaConf.copy_cache(from_config=first, to_config=last)  # the same time of day
        for option in ("dir", "name"):
            named = []
            for number, config in enumerate((first, last)):
                with read_write(config.hydra), open_dict(config.hydra):
                    config.hydra.job.num = number
                with hydra_node_of(config), config_errors_are_user_errors():
                    named.append(config.run[option])
            if named[0] != named[1]:
                what = f"run.{option} differs between the jobs, and names the folder of the whole sweep"
                fix = f"run.{option}=NAME; each job's folder in it is named by the values that differ"
                raise UserError(what, f"{named[0]} and {named[1]}", fix)

    @classmethod
    def begin(cls, given: Sequence[Override], first: DictConfig, has_runs: bool) -> "Sweep":
        """Make the sweep's folder.

        Args:
            given: the command line's overrides.
            first: the first job's composed config, with Hydra's node.
            has_runs: whether the jobs are runs; if not, the folder is temporary.

        Raises: UserError if `run.name` would leave `run.dir`, or if a value cannot be swept.
        """
        num_jobs = _num_jobs(given, first)
        swept = {override.key_or_group for override in given if override.is_sweep_override()}
        unswept = [override.key_or_group for override in given if override.key_or_group not in swept]
        if has_runs:
            missing = missing_folders(checked_dir(first.run.dir))
            folder = make_sweep_folder(first, swept)
        else:
            missing = []
            folder = Path(tempfile.mkdtemp(prefix="lmft-"))
        overrides = [
            f"hydra.sweep.dir={quoted(str(folder))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quoted, unswept))}]",
        ]
        # A job's folder is named by the values that differ between jobs; if one of them is a secret, by
        # its number.
        if any(has_secret(override) for override in given if override.is_sweep_override()):
            overrides.append("hydra.sweep.subdir=${hydra.job.num}")
        return cls(folder, [folder, *missing], has_runs, overrides, num_jobs)

    @contextmanager
    def attempt(
        self, folder: Path, number: int, redactor: Redactor, record: Callable[[Outcome], None]
    ) -> Iterator[None]:
        """Run one job in the block, and give its outcome to `record`; an error does not leave the block.

        A run shows one line when it ends; its other output goes only to its train.log. A job without a
        run folder has no log: it shows a line when it begins, then all its output.

        Args:
            folder: the job's folder.
            number: the job's number, from 1.
            redactor: removes the secrets of the job's config.
            record: takes the outcome; `Sweep.record` in the process that shows the sweep.
        """
        remove_hydra_record(folder.parent)
        job = self.label(number, folder.name)
        if not self.has_runs:
            log.info("%s", job)
            failure = None
            try:
                with target_errors_are_user_errors():
                    yield
            except Exception as error:
                bug = error if as_user_error(error) is None else None
                log.error("%s: failed: %s", job, one_line(error), exc_info=bug)
                failure = failure_of(error, redactor)
            record(Outcome(folder.name, None, failure))
            return
        metrics = RunFolder(folder).metrics
        before = metrics.read_bytes() if metrics.exists() else None
        failure = None
        with logged_only(folder, redactor) as end:
            yield
        if end.error is not None:
            failure = failure_of(end.error, redactor)
            after = metrics.read_bytes() if metrics.exists() else None
            # A refused job leaves the files of an earlier run unchanged.
            if after != before or not RunFolder(folder).is_run():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(metrics, {**read_json(metrics), **failure})
        record(Outcome(folder.name, f"{job}: {end}", failure))

    def label(self, number: int, name: str) -> str:
        """Return what a job's line begins with: its number, from 1, and the name of its folder."""
        position = f"{number}/{self.num_jobs}" if self.num_jobs else f"{number}"
        return f"[{position}] {name}"

    def record(self, outcome: Outcome) -> None:
        """Show how a job ended, and keep its failure for the table and the exit code."""
        if outcome.failure is not None:
            self.failures[outcome.job] = outcome.failure
        print(outcome.output, end="", flush=True)
        if outcome.line is not None:
            self.live.erase()
            log.log(logging.ERROR if outcome.failure else logging.INFO, "%s", outcome.line)
            self.live.num_ended += 1
            self.live.draw(self.failures)

    def command(self, command: str, arguments: Sequence[str], redactor: Redactor) -> str:
        """Return the command that continues the sweep: jobs that are complete are not run again.

        Args:
            command: the command's name.
            arguments: flags and overrides that began it.
            redactor: removes the secrets of its config.
        """
        kept = [argument for argument in arguments if not argument.startswith("run.name=")]
        named = assignment("run.name", self.folder.name)
        redacted = map(redactor.argument, [*kept, named])
        return shlex.join(["python", "-m", f"lmft.{command}", "-m", *redacted])

    def end(self, link_best: LinkBest | None = None) -> int:
        """Print the table of jobs, write sweep.csv, and clean up. Return the process's exit code.

        link_best: links the best run.
        """
        remove_hydra_record(self.folder)
        if not self.has_runs:
            shutil.rmtree(self.folder)
        else:
            self.live.erase()
            report(self.folder, self.failures, None if link_best is None else link_best(self.folder))
            remove_empty(self.created)
        codes = {failure["exit_code"] for failure in self.failures.values()}
        if len(codes) > 1:
            return 1
        return max(codes, default=0)


def _num_jobs(given: Sequence[Override], first: DictConfig) -> int | None:
    """Return the number of jobs; None if only the sweeper knows it."""
    if is_search(first):
        return num_trials(given, first)
    if first.hydra.sweeper._target_ != grid.OF_HYDRA:
        return None
    for override in given:
        if override.is_interval_sweep():
            what = "a grid has no values for an interval"
            fix = f"sweep=optuna searches in it; or name values: {override.key_or_group}=A,B"
            raise UserError(what, override.input_line, fix)
    params = map(parse, grid.params_of(first))
    if first.hydra.sweeper.max_batch_size is not None and first.hydra.sweeper.max_batch_size < 1:
        raise UserError("hydra.sweeper.max_batch_size is 1 or more, or null")
    with config_errors_are_user_errors():
        [jobs] = BasicSweeper.split_arguments([*params, *given], None)
    return len(jobs)
