"""The table of a sweep's jobs, on the terminal and in sweep.csv."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmft.runs.folder import RunFolder
from lmft.system.files import read_json


def _jobs(sweep_folder: Path, failures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each job's metrics.json, failure and name, sorted by validation loss, failed jobs last."""
    recorded = {
        path.parent.name: read_json(path)
        for path in sorted(sweep_folder.glob("*/metrics.json"))
        if not path.parent.is_symlink()  # `best` leads to one of the others
    }
    names = dict.fromkeys([*recorded, *failures])
    jobs = [{**recorded.get(name, {}), **failures.get(name, {}), "job": name} for name in names]
    return sorted(jobs, key=_rank)


def rows_of(sweep_folder: Path, failures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return each job's row of sweep.csv, the best first; arguments as of `report`."""
    return [_row(job) for job in _jobs(sweep_folder, failures)]


def _rank(job: Mapping[str, Any]) -> tuple[bool, bool, float]:
    loss = scores_of(job).get("loss")
    status = job["status"]
    return status == "failed", status == "pruned", math.inf if loss is None else loss


def scores_of(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the scores of the weights in model/; if unknown, those of the last validation."""
    return job.get("exported") or job.get("after") or {}


def _row(job: Mapping[str, Any]) -> dict[str, str]:
    """Return a job's row of sweep.csv and of the table.

    The least important columns come last, since the terminal drops what does not fit.
    """
    scores = scores_of(job)
    before = job.get("before") or {}
    train = job.get("train") or {}
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
    """Return a value as text; numbers have six significant digits, and no exponent below 1e15."""
    if value is None or isinstance(value, str):
        return value or ""
    if 1e6 <= abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.6g}"


def report(
    sweep_folder: Path, failures: Mapping[str, Mapping[str, Any]], best: Path | None = None
) -> None:
    """Print the table of a sweep's jobs, the best first, and write it to sweep.csv.

    Args:
        sweep_folder: the sweep's.
        failures: job -> status, error and exit code, for each job that failed in this sweep.
        best: the folder of its best run, which the link `best` leads to; None: there is no link.
    """
    from rich.text import Text

    from lmft.reporting.terminal import parted, show, table_page, terminal

    rows = rows_of(sweep_folder, failures)
    if not rows:
        return
    with (sweep_folder / "sweep.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    width = terminal().width
    columns = [column for column in rows[0] if column != "error" and any(row[column] for row in rows)]
    first_group = parted(columns, [[row[column] for column in columns] for row in rows], width)[0]
    fitting = [columns[i] for i in first_group]
    notes = []
    if len(fitting) < len(columns):
        notes.append(f"{', '.join(columns[len(fitting) :])}: in sweep.csv")
    cells = [tuple(row[column] for column in fitting) for row in rows]
    title = f"{sweep_folder}: validation, loss in nats per target"
    if best is not None:
        model = RunFolder(best).model
        where = model if model.is_dir() else best
        notes.append(f"best: {where}; {sweep_folder / 'best'} leads to its run")
    # The error of a job of this sweep stands in the job's own line.
    errors = [
        Text(f"{row['job']}: {row['error']}", style="red")
        for row in rows
        if row["error"] and row["job"] not in failures
    ]
    show(*table_page(title, tuple(fitting), cells, notes, width), *errors)
