"""Rank settings: the mean and standard deviation of their runs, in groups that can be compared."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lmft.comparison.measured import Measured, measured_by
from lmft.comparison.records import SCORES, Record, as_key
from lmft.comparison.settings import Column, differing

HIGHER_IS_BETTER = ("accuracy",)
RANKED_BY = ("loss", "perplexity", "bits_per_byte", "accuracy")


@dataclass(frozen=True)
class Setting:
    """Runs whose settings are the same, but for the seed."""

    number: int | None
    """Its rank in its group, from 1; None if no run of it is complete."""
    values: dict[str, Any]
    """Option that differs -> its value; empty if it is not known."""
    records: list[Record]
    """Complete runs first, the best one first."""
    by: str

    @property
    def complete(self) -> list[Record]:
        """The runs whose scores count."""
        return [record for record in self.records if record.is_ranked]

    def mean(self, score: str) -> float | None:
        """Return the mean of a score, or of `seconds`, `tokens`, `memory_gb`, over the complete runs."""
        known = self._known(score)
        return statistics.fmean(known) if known else None

    def deviation(self, score: str) -> float | None:
        """Return the standard deviation over the complete runs; None for fewer than two."""
        known = self._known(score)
        return statistics.stdev(known) if len(known) > 1 else None

    def _known(self, score: str) -> list[float]:
        values = [value_of(record, score) for record in self.complete]
        return [value for value in values if value is not None and math.isfinite(value)]


@dataclass(frozen=True)
class Group:
    """Settings whose scores can be compared."""

    settings: list[Setting]
    """The best one first; those without a complete run last."""
    by: str
    """The score that ranks them."""
    measured: Measured
    """Of its first run; another one may have another vocabulary."""


@dataclass(frozen=True)
class Comparison:
    """Runs, ranked."""

    groups: list[Group]
    """The one of most complete runs first."""
    columns: list[Column]
    records: list[Record]

    @property
    def settings(self) -> list[Setting]:
        """The settings of all groups, in order."""
        return [setting for group in self.groups for setting in group.settings]

    @property
    def winner(self) -> Record | None:
        """The best run of the best setting; None if no run is complete, or not all can be compared."""
        ranked = [setting for setting in self.settings if setting.number is not None]
        num_groups = sum(any(setting.number for setting in group.settings) for group in self.groups)
        return ranked[0].records[0] if num_groups == 1 else None

    @property
    def why_apart(self) -> list[str]:
        """The differences between the groups of complete runs, in words."""
        measured = [group.measured for group in self.groups]
        names = {
            "text": "validation text",
            "vocabulary": "vocabulary",
            "task": "what validation measures (objective, family, data.train_on, weights of sources)",
        }
        return [
            words for name, words in names.items() if len({getattr(each, name) for each in measured}) > 1
        ]


def value_of(record: Record, name: str) -> float | None:
    """Return a run's score, or its `seconds`, `tokens` or `memory_gb`."""
    if name in SCORES:
        return record.scores.get(name)
    return getattr(record, name)


def ranked(records: Sequence[Record], by: str | None = None) -> Comparison:
    """Group runs by what they measure and by their settings, and rank the settings.

    Args:
        records: the runs.
        by: score that ranks; None: loss, or bits_per_byte where vocabularies differ.
    """
    columns = differing(records)
    measured = measured_by(records)
    groups = [
        _group(members, columns, score, measured[members[0].name])
        for members, score in _parted(records, measured, by)
    ]
    return Comparison(groups, columns, list(records))


def _parted(
    records: Sequence[Record], measured: Mapping[str, Measured], by: str | None
) -> list[tuple[list[Record], str]]:
    """Return the runs in groups that can be compared, each with the score that ranks it.

    A run that counts nowhere, and whose text is not known, joins the first group: it is only listed.
    """
    texts: dict[tuple[str, str], list[Record]] = {}
    unknown = []
    for record in records:
        of_run = measured[record.name]
        if of_run.text or record.is_ranked:
            texts.setdefault((of_run.text, of_run.task), []).append(record)
        else:
            unknown.append(record)
    if not texts:
        return [(unknown, by or "loss")]
    parted: list[tuple[list[Record], str]] = []
    for members in texts.values():
        vocabularies: dict[str, list[Record]] = {}
        for record in members:
            vocabularies.setdefault(measured[record.name].vocabulary, []).append(record)
        has_bits = all(
            record.scores.get("bits_per_byte") is not None for record in members if record.is_ranked
        )
        if len(vocabularies) == 1:
            parted.append((members, by or "loss"))
        elif has_bits and by in (None, "bits_per_byte"):
            parted.append((members, "bits_per_byte"))
        else:
            parted += [(each, by or "loss") for each in vocabularies.values()]
    parted.sort(key=lambda part: -sum(record.is_ranked for record in part[0]))
    parted[0][0].extend(unknown)
    return parted


def _group(records: Sequence[Record], columns: Sequence[Column], by: str, measured: Measured) -> Group:
    by_values: dict[str, list[Record]] = {}
    for record in records:
        key = as_key(_values(record, columns)) if record.settings else record.name
        by_values.setdefault(key, []).append(record)
    settings = [
        Setting(None, _values(members[0], columns), sorted(members, key=_order(by)), by)
        for members in by_values.values()
    ]
    settings.sort(key=_rank)
    numbered = [
        replace(setting, number=number) if setting.complete else setting
        for number, setting in enumerate(settings, 1)
    ]
    return Group(numbered, by, measured)


def _values(record: Record, columns: Sequence[Column]) -> dict[str, Any]:
    return {column.key: column.values[record.name] for column in columns if record.name in column.values}


def _order(by: str) -> Any:
    return lambda record: (not record.is_ranked, _cost(value_of(record, by), by))


def _rank(setting: Setting) -> tuple[bool, float]:
    return not setting.complete, _cost(setting.mean(setting.by), setting.by)


def _cost(value: float | None, by: str) -> float:
    """Return a number that is smaller for a better score."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if by in HIGHER_IS_BETTER else value
