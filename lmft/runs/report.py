"""Write report.html from the files of a run's folder, also while the run trains and after a crash."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.reporting.report import Told, report_page
from lmft.runs.branch import folder_of, recorded_parent
from lmft.runs.folder import RunFolder
from lmft.runs.lock import is_locked
from lmft.runs.rows import read_lines, read_rows
from lmft.system.files import read_json, read_yaml, write_text

_MOST_PARENTS = 20
_SCORES = ("loss", "perplexity", "accuracy", "bits_per_byte")


def write_report(
    run: RunFolder, name: str, status: str, metrics: Mapping[str, Any] | None = None
) -> None:
    """Write report.html, at once: a reader sees the old page or the new one.

    Args:
        run: the run's folder.
        name: the run's.
        status: how it is now.
        metrics: what metrics.json is going to hold; None: what it holds.
    """
    write_text(run.report, page_of(run, name, status, metrics))


def page_of(run: RunFolder, name: str, status: str, metrics: Mapping[str, Any] | None = None) -> str:
    """Return the report. Arguments as of `write_report`."""
    rows = read_rows(run.metrics_csv)
    recorded = read_json(run.metrics) if metrics is None else metrics
    command = None
    if run.command.exists():
        command = run.command.read_text("utf-8").strip()
    told = Told(
        name=name,
        metrics=_metrics(recorded, rows, status, is_final=metrics is not None),
        config=read_yaml(run.config) if run.is_run() else {},
        rows=rows,
        samples=read_lines(run.samples),
        facts=recorded.get("facts") or read_json(run.facts),
        details=read_json(run.details),
        example=read_json(run.example),
        setup=read_json(run.setup),
        lineage=_lineage(run),
        command=command,
        time=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    return report_page(told)


def status_of(run: RunFolder) -> str:
    """Return running, complete, stopped, failed or pruned; unfinished if its process was killed, and
    unreadable if metrics.json is broken.
    """
    if is_locked(run):
        return "running"
    try:
        metrics: Any = read_json(run.metrics)
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict):
        return "unreadable"
    return str(metrics.get("status") or "unfinished")


def last_change(run: RunFolder) -> tuple[Any, ...]:
    """Return what differs when the report would differ: times and sizes of the files, and the status."""
    files = (
        *(run.metrics_csv, run.metrics, run.samples, run.config, run.command),
        *(run.facts, run.details, run.example, run.setup, run.parent),
    )
    changes = [path.stat() for path in files if path.exists()]
    return (status_of(run), *((each.st_mtime_ns, each.st_size) for each in changes))


def _metrics(
    recorded: Mapping[str, Any], rows: Sequence[Mapping[str, float]], status: str, is_final: bool
) -> dict[str, Any]:
    """Return the numbers of a run as far as it has got.

    metrics.json may be of an earlier end, after which the run was continued: then only what does not
    change is taken from it.
    """
    steps = int(rows[-1]["step"]) if rows else None
    if is_final or (status != "running" and recorded.get("steps") == steps):
        return {**recorded, "status": status}
    of_end = () if status == "running" else ("error", "command")
    kept = {name: recorded[name] for name in ("parent", *of_end) if name in recorded}
    passes = [row for row in rows if "val/loss" in row]
    trained = [row for row in passes if row["step"] > 0]
    before = next((row for row in passes if row["step"] == 0), None)
    best = None
    if trained:
        row = min(trained, key=_loss)
        best = {"step": int(row["step"]), **_scores(row)}
    return {
        **kept,
        "status": status,
        "steps": steps,
        "before": _scores(before),
        "after": _scores(trained[-1] if trained else None),
        "best": best,
        "train": {"tokens": _last(rows, "train/tokens")},
    }


def _loss(row: Mapping[str, float]) -> float:
    return math.inf if math.isnan(row["val/loss"]) else row["val/loss"]


def _scores(row: Mapping[str, float] | None) -> dict[str, Any]:
    """Return the scores of a validation's row in metrics.csv."""
    if row is None:
        return {}
    return {name: row.get(f"val/{name}") for name in _SCORES}


def _last(rows: Sequence[Mapping[str, float]], column: str) -> int | None:
    values = [row[column] for row in rows if column in row]
    return int(values[-1]) if values else None


def _lineage(run: RunFolder) -> list[dict[str, Any]]:
    """Return the run's parent, the parent's parent, and so on, as far as their folders are there."""
    parents = []
    while len(parents) < _MOST_PARENTS and (parent := recorded_parent(run)) is not None:
        parents.append(parent.record())
        run = folder_of(Path(parent.checkpoint))
    return parents
