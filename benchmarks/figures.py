"""Medians of several rounds, their ratios and their spread, and the file that keeps them."""

import json
import statistics
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import machine

Rounds = dict[str, list[dict[str, float]]]
"""The figures of each side, round by round."""


def rounded(number: float) -> float:
    """Return three digits of it."""
    short = float(f"{number:.3g}")
    return int(short) if short == int(short) else short


def value(values: list[float], unit: str, **more: Any) -> dict[str, Any]:
    """Return the median of some rounds with its range."""
    return {
        "value": rounded(statistics.median(values)),
        "low": rounded(min(values)),
        "high": rounded(max(values)),
        "unit": unit,
        "rounds": len(values),
        **more,
    }


def ratio(ours: list[float], other: list[float], against: str) -> dict[str, Any]:
    """Return the ratio of two medians, and the range of the ratios within single rounds."""
    pairs = [a / b for a, b in zip(ours, other, strict=False)]
    return {
        "ratio": rounded(statistics.median(ours) / statistics.median(other)),
        "low": rounded(min(pairs)),
        "high": rounded(max(pairs)),
        "rounds": len(pairs),
        "against": against,
    }


def values_of(rounds: Rounds, side: str, figure: str) -> list[float]:
    """Return one figure of a side, round by round."""
    return [row[figure] for row in rounds.get(side, []) if figure in row]


def compared(rounds: Rounds, figure: str, unit: str, ours: str = "lmft") -> Iterator[dict[str, Any]]:
    """Yield the value of `ours`, and its ratio to each other side that has the figure."""
    mine = values_of(rounds, ours, figure)
    if not mine:
        return
    yield value(mine, unit)
    for side in rounds:
        others = values_of(rounds, side, figure)
        if side != ours and others:
            yield ratio(mine, others, side)


def ways_of(rounds: Sequence[dict[str, float]]) -> Rounds:
    """Return the figures of each way to compute something, measured together as `WAY, FIGURE`."""
    ways: Rounds = {}
    for found in rounds:
        split: dict[str, dict[str, float]] = {}
        for name, number in found.items():
            way, _, figure = name.rpartition(", ")
            split.setdefault(way, {})[figure] = number
        for way, figures in split.items():
            ways.setdefault(way, []).append(figures)
    return ways


class ResultsFile:
    """The figures of a machine as JSON: a figure that is measured again replaces the earlier one."""

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self.path = path
        self.facts = facts

    @classmethod
    def of_machine(cls, folder: Path) -> "ResultsFile":
        """Return the file of this machine in a folder."""
        facts = machine.facts()
        return cls(folder / f"{machine.name(facts)}.json", facts)

    def add(self, row: dict[str, Any]) -> None:
        """Write one more figure."""
        old = json.loads(self.path.read_text("utf-8"))["results"] if self.path.exists() else []
        kept = [
            each for each in old if (each["section"], each["figure"]) != (row["section"], row["figure"])
        ]
        content = {
            "machine": self.facts,
            "measured": date.today().strftime("%Y-%m"),
            "results": [*kept, row],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", "utf-8")
