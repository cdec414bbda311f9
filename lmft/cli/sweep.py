"""A sweep: a job for each combination of values, each in a folder of its own, a line for each when it is
over, and a table of all at the end.
"""

import csv
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lmft.config.hydra_errors import config_errors_are_user_errors, target_errors_are_user_errors
from lmft.config.overrides import parse, quoted
from lmft.errors import EXIT_CODE, UserError, as_user_error
from lmft.runs.folder import (
    RunFolder,
    checked_name,
    default_name,
    make_folder,
    missing_folders,
    new_folder,
    remove_empty,
)
from lmft.runs.log import buffering_logs, capturing_logs, logging_to
from lmft.runs.redaction import Redactor, is_secret_name
from lmft.system.files import read_json, write_json

log = logging.getLogger(__name__)

_LONGEST_NAME = 120  # characters of a job's folder; file systems end at 255 bytes


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, and what Hydra has to be told about it."""

    folder: Path
    made: list[Path]
    """It and its parents, as far as they were not there."""
    has_runs: bool
    hydra_overrides: list[str]
    num_jobs: int | None
    """None where the sweeper decides as it goes."""
    failures: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Job -> how it failed in this sweep: status, error and exit code."""

    @classmethod
    def begin(cls, given: Sequence[Override], first: DictConfig, has_runs: bool) -> "Sweep":
        """Makes the sweep's folder.

        Args:
            given: the command line's overrides.
            first: the first job's composed config, with Hydra's node.
            has_runs: whether the jobs are runs, so that the folder is to stay.

        Raises: UserError if `run.name` would leave `run.dir`, or if a value cannot be swept.
        """
        num_jobs = _num_jobs(given, first)
        swept = {override.key_or_group for override in given if override.is_sweep_override()}
        same = [override.key_or_group for override in given if override.key_or_group not in swept]
        missing = missing_folders(Path(first.run.dir)) if has_runs else []
        folder = _make_folder(first, swept) if has_runs else Path(tempfile.mkdtemp(prefix="lmft-"))
        # A job's folder is called after what differs between the jobs, but not after a secret.
        overrides = [
            f"hydra.sweep.dir={quoted(str(folder))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{','.join(map(quoted, same))}]",
            *(["hydra.sweep.subdir=${hydra.job.num}"] if any(map(is_secret_name, swept)) else []),
        ]
        return cls(folder, [folder, *missing], has_runs, overrides, num_jobs)

    @contextmanager
    def attempt(self, folder: Path, number: int, redactor: Redactor) -> Iterator[None]:
        """For a job: an error inside is said and recorded in the job's folder, and the sweep goes on.

        A run shows one line, when it is over; what it shows otherwise goes to its train.log alone. A job that
        leaves no
        run has no such file: its line comes first, and then all that it shows.

        folder: the job's; number: from 1.
        """
        remove_hydra_record(folder.parent)
        job = f"[{number}/{self.num_jobs}] {folder.name}" if self.num_jobs else f"[{number}] {folder.name}"
        if not self.has_runs:
            log.info("%s", job)
            try:
                with target_errors_are_user_errors():
                    yield
            except Exception as error:
                log.error(
                    "%s: failed: %s", job, _one_line(error), exc_info=None if as_user_error(error) else error
                )
                self.failures[folder.name] = _failure(error, redactor)
            return
        metrics = RunFolder(folder).metrics
        before = metrics.read_bytes() if metrics.exists() else None
        with _logged_only(folder, redactor) as outcome:
            yield
        if outcome.error is not None:
            self.failures[folder.name] = _failure(outcome.error, redactor)
            was_touched = before != (metrics.read_bytes() if metrics.exists() else None)
            # What is refused leaves a run's files as they are.
            if was_touched or not RunFolder(folder).is_run():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(metrics, {**read_json(metrics), **self.failures[folder.name]})
        log.log(logging.ERROR if outcome.error else logging.INFO, "%s: %s", job, outcome)

    def end(self) -> int:
        """Prints the table of jobs, writes it to sweep.csv, and tidies up. Returns the process's exit code."""
        remove_hydra_record(self.folder)
        if not self.has_runs:
            shutil.rmtree(self.folder)
        else:
            _report(self.folder, self.failures)
            remove_empty(self.made)
        codes = {failure["exit_code"] for failure in self.failures.values()}
        return max(codes, default=0) if len(codes) < 2 else 1


def job_name(differing: str, number: int) -> str:
    """A job's folder: the overrides that differ between jobs, in characters that any file system takes."""
    name = re.sub(r"[^\w.,=+-]+", "-", differing.replace("++", "")).strip("-.,+")[:_LONGEST_NAME]
    if not name:
        return f"job-{number}"
    return name if name == differing.replace("++", "") else f"{name}-{number}"  # two jobs may look alike now


def remove_hydra_record(sweep_folder: Path) -> None:
    """Removes the copy of the config, secrets included, that Hydra writes into a sweep's folder."""
    (sweep_folder / "multirun.yaml").unlink(missing_ok=True)


def _make_folder(first: DictConfig, swept: set[str]) -> Path:
    if first.run.name is None:
        choices = first.hydra.runtime.choices
        name = default_name({group: choices.get(group) for group in ("model", "data") if group not in swept})
        return new_folder(Path(first.run.dir) / name)
    name = checked_name(str(first.run.name))
    if "/" in name:
        raise UserError("a sweep's name has no '/'", f"run.name={name}")
    folder = Path(first.run.dir) / name
    if RunFolder(folder).is_run():
        raise UserError(
            f"run name '{name}' is in use", f"{folder} is a single run", "choose another run.name"
        )
    make_folder(folder)
    return folder


class _Outcome(logging.Handler):
    """How a job that leaves a run went, in a line; the warnings in it are counted as they come."""

    def __init__(self, run: RunFolder):
        super().__init__(logging.WARNING)
        self.run = run
        self.error: Exception | None = None
        self.has_log = False
        self.num_warnings = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Counts a warning."""
        self.num_warnings += 1

    def __str__(self) -> str:
        parts = [f"failed: {_one_line(self.error)}"] if self.error else _result(read_json(self.run.metrics))
        if self.num_warnings and self.has_log:
            parts.append(
                f"{self.num_warnings} warning{'s' if self.num_warnings > 1 else ''} in its train.log"
            )
        if not self.has_log and not self.error:
            parts.insert(0, "is already complete")
        return ", ".join(parts)


@contextmanager
def _logged_only(folder: Path, redactor: Redactor) -> Iterator[_Outcome]:
    """Inside, the terminal shows nothing; an error is recorded in the job's folder, with what led to it."""
    from lmft.reporting.terminal import muted

    run = RunFolder(folder)
    outcome = _Outcome(run)
    with muted(), buffering_logs(starts_empty=True) as memory:
        try:
            with capturing_logs(outcome), target_errors_are_user_errors():
                yield outcome
        except Exception as error:
            outcome.error = error
            bug = error if as_user_error(error) is None else None
            # A refused run keeps the log that it has.
            if not memory.was_handed_over and (bug or not run.log.exists()):
                with logging_to(run.log, redactor):
                    log.error("%s", _one_line(error), exc_info=bug)
        outcome.has_log = memory.was_handed_over


def _one_line(error: Exception) -> str:
    """What the user can mend, with where and how; of another error its first line."""
    said = as_user_error(error)
    if said is not None:
        return "; ".join(" ".join(line.split()) for line in str(said).splitlines())
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _result(metrics: Mapping[str, Any]) -> list[str]:
    """The scores, or else the status, and the time of training, as far as they are known."""
    from lmft.reporting.tables import duration

    scores = _scores(metrics)
    numbers = [("perplexity {:,.2f}", scores.get("perplexity")), ("loss {:.4f}", scores.get("loss"))]
    parts = [form.format(number) for form, number in numbers if number is not None]
    seconds = (metrics.get("train") or {}).get("seconds")
    return [*(parts or [metrics.get("status", "unknown")]), *([] if seconds is None else [duration(seconds)])]


def _failure(error: Exception, redactor: Redactor) -> dict[str, Any]:
    """What metrics.json and the table say of a job that failed."""
    said = as_user_error(error)
    what = f"{type(error).__name__}: {error}" if said is None else said.what
    return {"status": "failed", "error": redactor.text(what), "exit_code": 1 if said is None else EXIT_CODE}


def _num_jobs(given: Sequence[Override], first: DictConfig) -> int | None:
    """How many jobs there will be; None where that is up to the sweeper."""
    if first.hydra.sweeper._target_ != f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}":
        return None
    params = [parse(f"{key}={values}") for key, values in (first.hydra.sweeper.params or {}).items()]
    with config_errors_are_user_errors():
        [jobs] = BasicSweeper.split_arguments([*params, *given], None)
    return len(jobs)


def _jobs(sweep_folder: Path, failures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """metrics.json of each job with the job's name, and how it failed now; the lowest validation loss first."""
    found = {path.parent.name: read_json(path) for path in sorted(sweep_folder.glob("*/metrics.json"))}
    names = dict.fromkeys([*found, *failures])
    jobs = [{**found.get(name, {}), **failures.get(name, {}), "job": name} for name in names]
    return sorted(
        jobs, key=lambda job: (job["status"] == "failed", _known(_scores(job).get("loss"), math.inf))
    )


def _scores(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of the weights in model/, where they are known; else those of the last validation."""
    return job.get("exported") or job.get("after") or {}


def _known(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number


def _row(job: Mapping[str, Any]) -> dict[str, str]:
    """A row of sweep.csv, and of the table: what matters most stands first, as the last columns may not fit."""
    scores, before, train = _scores(job), job.get("before") or {}, job.get("train") or {}
    cells = {
        "job": job["job"],
        "loss": scores.get("loss"),
        "perplexity": scores.get("perplexity"),
        "status": job["status"],
        "seconds": train.get("seconds"),
        "loss before": before.get("loss"),
        "perplexity before": before.get("perplexity"),
        "error": job.get("error"),
    }
    return {name: _cell(value) for name, value in cells.items()}


def _cell(value: str | float | None) -> str:
    """Of a number six digits, or all of those before the point."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"


def _report(sweep_folder: Path, failures: Mapping[str, Mapping[str, Any]]) -> None:
    from rich.text import Text

    from lmft.reporting.terminal import parted, show, table_page, terminal

    rows = [_row(job) for job in _jobs(sweep_folder, failures)]
    if not rows:
        return
    with (sweep_folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    width = terminal().width
    heads = [column for column in rows[0] if column != "error" and any(row[column] for row in rows)]
    fitting = [heads[i] for i in parted(heads, [[row[head] for head in heads] for row in rows], width)[0]]
    notes = [f"{', '.join(heads[len(fitting) :])}: in sweep.csv"] if len(fitting) < len(heads) else []
    cells = [tuple(row[head] for head in fitting) for row in rows]
    title = f"{sweep_folder}: validation, loss in nats per target"
    errors = [Text(f"{row['job']}: {row['error']}", style="red") for row in rows if row["error"]]
    show(*table_page(title, tuple(fitting), cells, notes, width), *errors)
