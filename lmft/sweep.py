"""A sweep: a job for each combination of values, each in a folder of its own, and a table of all jobs at the end."""

import csv
import logging
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lmft.arguments import quoted
from lmft.errors import EXIT_CODE, UserError, explained
from lmft.mistakes import option_mistakes_are_user_errors
from lmft.redaction import Redactor, is_secret_name
from lmft.run_folder import (
    RunFolder,
    checked_name,
    default_name,
    make_folder,
    missing_folders,
    new_folder,
    read_json,
    remove_empty,
    write_json,
)

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

    @classmethod
    def begin(cls, given: Sequence[Override], first: DictConfig, has_runs: bool) -> "Sweep":
        """Makes the sweep's folder.

        Args:
            given: the command line's overrides.
            first: the first job's composed config, with Hydra's node.
            has_runs: whether the jobs are runs, so that the folder is to stay.

        Raises: UserError if `run.name` would leave `run.dir`.
        """
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
        return cls(folder, [folder, *missing], has_runs, overrides)

    def end(self) -> int:
        """Prints the table of jobs, writes it to sweep.csv, and tidies up. Returns the process's exit code."""
        remove_hydra_record(self.folder)
        failures = [job["exit_code"] for job in _jobs(self.folder) if "exit_code" in job]
        if not self.has_runs:
            shutil.rmtree(self.folder)
        else:
            _report(self.folder)
            remove_empty(self.made)
        return 0 if not failures else EXIT_CODE if set(failures) == {EXIT_CODE} else 1


def job_name(differing: str, number: int) -> str:
    """A job's folder: the overrides that differ between jobs, in characters that any file system takes."""
    name = re.sub(r"[^\w.,=+-]+", "-", differing.replace("++", "")).strip("-.,+")[:_LONGEST_NAME]
    if not name:
        return f"job-{number}"
    return name if name == differing.replace("++", "") else f"{name}-{number}"  # two jobs may look alike now


@contextmanager
def attempt(folder: Path, redactor: Redactor) -> Iterator[None]:
    """For a job of a sweep: an error inside is logged and recorded in the job's folder, and the sweep goes on."""
    remove_hydra_record(folder.parent)
    try:
        with option_mistakes_are_user_errors():
            yield
    except Exception as error:
        said = explained(error)
        if said is not None:
            log.error("Job %s failed: %s", folder.name, said)
            _record(folder, redactor.text(said.what), EXIT_CODE)
        else:
            log.exception("Job %s failed:", folder.name)
            _record(folder, redactor.text(f"{type(error).__name__}: {error}"), 1)


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
        raise UserError(f"run name '{name}' is in use", f"{folder} is a single run", "choose another run.name")
    make_folder(folder)
    return folder


def _record(folder: Path, error: str, exit_code: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = RunFolder(folder).metrics
    write_json(path, {**read_json(path), "status": "failed", "error": error, "exit_code": exit_code})


def _jobs(sweep_folder: Path) -> list[dict[str, Any]]:
    """metrics.json of each job with the job's name, the lowest validation loss first."""
    jobs = [{**read_json(path), "job": path.parent.name} for path in sorted(sweep_folder.glob("*/metrics.json"))]
    return sorted(jobs, key=lambda job: (job["status"] == "failed", _number(job, "after", "loss", missing=math.inf)))


def _number(job: Mapping[str, Any], part: str, name: str, missing: float = math.nan) -> float:
    value = (job.get(part) or {}).get(name)
    return missing if value is None else value


def _row(job: Mapping[str, Any]) -> dict[str, str]:
    numbers = {
        "loss before": _number(job, "before", "loss"),
        "loss": _number(job, "after", "loss"),
        "perplexity before": _number(job, "before", "perplexity"),
        "perplexity": _number(job, "after", "perplexity"),
        "seconds": _number(job, "train", "seconds"),
    }
    shown = {name: "" if math.isnan(number) else f"{number:.6g}" for name, number in numbers.items()}
    return {"job": job["job"], "status": job["status"], **shown, "error": job.get("error", "")}


def _report(sweep_folder: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = [_row(job) for job in _jobs(sweep_folder)]
    if not rows:
        return
    with (sweep_folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    table = Table(title=f"{sweep_folder}: validation, loss in nats per target", box=SIMPLE_HEAD)
    shown = [column for column in rows[0] if column != "error"]
    for column in shown:
        is_text = column in ("job", "status")
        table.add_column(column, justify="left" if is_text else "right", no_wrap=is_text)
    for row in rows:
        table.add_row(*(escape(row[column]) for column in shown))
    console = Console()
    console.print(table)
    for row in rows:
        if row["error"]:
            console.print(escape(f"{row['job']}: {row['error']}"), style="red", highlight=False)
