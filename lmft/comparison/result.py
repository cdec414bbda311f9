"""A comparison as plain data: compare.json, compare.csv and what the page draws."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lmft.comparison.importance import FEWEST_RUNS, METHOD, Importance, importances
from lmft.comparison.ranking import HIGHER_IS_BETTER, Comparison, Group, Setting
from lmft.comparison.records import Record
from lmft.comparison.settings import shown
from lmft.system.files import finite

_MOST_POINTS = 300  # of a run's curve on the page
_DEVIATION = "_deviation"
_LATEST = "latest_loss"
COSTS = ("tokens", "seconds", "memory_gb")


def result(comparison: Comparison, seed: int) -> dict[str, Any]:
    """Return the content of compare.json.

    Args:
        comparison: the runs, ranked.
        seed: seed of the random orders to which importances are compared.
    """
    winner = comparison.winner
    content = {
        "options": [{"key": column.key, "also": list(column.also)} for column in comparison.columns],
        "why_apart": comparison.why_apart,
        "winner": None if winner is None else {"run": winner.name, "command": winner.command},
        "groups": [_group(group, comparison, seed) for group in comparison.groups],
    }
    return finite(content)


def _group(group: Group, comparison: Comparison, seed: int) -> dict[str, Any]:
    return {
        "ranked_by": group.by,
        "higher_is_better": group.by in HIGHER_IS_BETTER,
        "validation": vars(group.measured),
        "settings": [_setting(setting) for setting in group.settings],
        "importance": _importances(group, comparison, seed),
    }


def _importances(group: Group, comparison: Comparison, seed: int) -> dict[str, Any]:
    """Return the importance of each option in a group, or why it is unknown."""
    runs = [(setting, record) for setting in group.settings for record in setting.complete]
    sign = -1 if group.by in HIGHER_IS_BETTER else 1
    costs = [sign * (record.scores.get(group.by) or 0.0) for _, record in runs]
    keys = [column.key for column in comparison.columns]
    values = [[setting.values.get(key) for setting, _ in runs] for key in keys]
    found = importances(values, costs, seed)
    if found is None:
        return {"reason": f"{len(runs)} complete runs are too few, it takes {FEWEST_RUNS}"}
    return {"method": METHOD, "options": dict(zip(keys, map(_importance, found), strict=True))}


def _importance(of_option: Importance) -> dict[str, float | None]:
    return {"share": of_option.share, "chance": of_option.chance}


def _setting(setting: Setting) -> dict[str, Any]:
    return {
        "rank": setting.number,
        "values": setting.values,
        "scores": {
            score: {"mean": setting.mean(score), "deviation": setting.deviation(score)}
            for score in ("loss", "perplexity", "accuracy", "bits_per_byte")
        },
        **{cost: setting.mean(cost) for cost in COSTS},
        "runs": [_run(record) for record in setting.records],
    }


def _run(record: Record) -> dict[str, Any]:
    return {
        "run": record.name,
        "seed": record.seed,
        "status": record.status,
        "error": record.error,
        "scores": record.scores,
        "by_source": record.by_source,
        "steps": record.steps,
        **{cost: getattr(record, cost) for cost in COSTS},
        "command": record.command,
    }


def curves(records: Sequence[Record]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return name of a run -> `val` and `train` -> points (step, nats per target)."""
    columns = {"val": "val/loss", "train": "train/loss"}
    return {
        record.name: {name: _points(record, column) for name, column in columns.items()}
        for record in records
    }


def _points(record: Record, column: str) -> list[tuple[float, float]]:
    points = [(row["step"], row[column]) for row in record.curve if column in row]
    points = [point for point in points if math.isfinite(point[1])]
    apart = math.ceil(len(points) / _MOST_POINTS) or 1
    return points[::apart]


def statuses(setting: Setting) -> str:
    """Return how the runs of a setting ended: `3 complete, 1 failed`; `complete` for a single one."""
    counts: dict[str, int] = {}
    for record in setting.records:
        counts[record.status] = counts.get(record.status, 0) + 1
    if list(counts.values()) == [1]:
        return next(iter(counts))
    return ", ".join(f"{count} {status}" for status, count in counts.items())


def table(comparison: Comparison) -> list[dict[str, str]]:
    """Return the rows of compare.csv: one for each setting, with the same columns in each."""
    rows = []
    for number, group in enumerate(comparison.groups, 1):
        for setting in group.settings:
            row = {} if len(comparison.groups) == 1 else {"group": str(number)}
            rows.append(row | _row(setting, group.by, comparison))
    return rows


def _row(setting: Setting, by: str, comparison: Comparison) -> dict[str, str]:
    row = {"rank": "" if setting.number is None else str(setting.number)}
    for column in comparison.columns:
        row[column.key] = shown(setting.values[column.key]) if column.key in setting.values else ""
    for score in dict.fromkeys((by, "loss", "bits_per_byte", "perplexity", "accuracy")):
        row[score] = number_text(setting.mean(score))
        row[f"{score}{_DEVIATION}"] = number_text(setting.deviation(score))
    latest = None if setting.complete else setting.records[0].scores.get("loss")
    return row | {
        _LATEST: number_text(latest),
        "status": statuses(setting),
        **{cost: number_text(setting.mean(cost)) for cost in COSTS},
        "runs": " ".join(record.name for record in setting.records),
    }


def for_reading(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the rows with each deviation beside its mean: `3.287±0.012`, and without empty columns.

    A setting without a complete run has the loss of its last validation in brackets.
    """
    heads = [head for head in rows[0] if head == "loss" or any(row[head] for row in rows)]
    readable = []
    for row in rows:
        shown_heads = [head for head in heads if not head.endswith(_DEVIATION) and head != _LATEST]
        cells = {head: _shorter(row[head]) for head in shown_heads}
        for head in cells:
            if deviation := row.get(f"{head}{_DEVIATION}"):
                cells[head] += f"±{float(deviation):.2g}"
        if row[_LATEST]:
            cells["loss"] = f"({row[_LATEST]})"
        readable.append(cells)
    return readable


def _shorter(cell: str) -> str:
    """Return a number of many digits with five of them, and other text as it is."""
    try:
        return min(cell, number_text(float(cell)), key=len)
    except ValueError:
        return cell


def number_text(value: float | None) -> str:
    """Return a number of five significant digits, large ones as whole numbers; "" for None."""
    if value is None:
        return ""
    if 1e4 <= abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.5g}"


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as the text of a csv file; a row lacks the columns that it does not need."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
