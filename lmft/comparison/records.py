"""Read what a run's folder tells of it: settings, status, scores, costs, curve."""

import csv
import json
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmft.config.shipped import with_defaults
from lmft.runs.folder import RunFolder
from lmft.runs.report import status_of
from lmft.runs.rows import read_rows
from lmft.system.files import read_json, read_yaml

SCORES = ("loss", "perplexity", "accuracy", "bits_per_byte", "targets")
# Options that change neither the trained weights nor what they are measured on.
_HOUSEKEEPING = (
    *("run", "resume", "seed", "trust", "logger", "checkpoint", "validate_before"),
    *("sweep", "launcher"),
    *("data.cache_dir", "data.worker_timeout", "data.probes", "model.probes"),
    *("data.probe_conversations", "data.prepare_processes", "data.prepare_job"),
)
_SUMMARY = ("python", "-m", "lmft.train")


@dataclass(frozen=True)
class Record:
    """A run, as its folder tells of it. What an older version did not write is None, or empty."""

    folder: RunFolder
    name: str
    """Its path from the folder that holds all runs that are compared."""
    status: str
    """complete, stopped, failed; running, unfinished (killed), unreadable; or a word of a sweeper."""
    error: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """Option with dots -> value, without the options that change no result."""
    typed: dict[str, str] | None = None
    """Key -> value of the command line; None if it is not known."""
    command: str | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    """Of the exported weights; of the last validation if there are none."""
    by_source: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    memory_gb: float | None = None
    texts: dict[str, Any] = field(default_factory=dict)
    """Validation text -> what the ledger tells of it."""
    curve: list[dict[str, float]] = field(default_factory=list)
    """Rows of metrics.csv, without empty cells."""

    @property
    def seed(self) -> Any:
        """The seed, if it is known."""
        return self.config.get("seed")

    @property
    def is_ranked(self) -> bool:
        """True if its scores count: those of a complete run, as far as they are finite."""
        loss = self.scores.get("loss")
        return self.status == "complete" and loss is not None and math.isfinite(loss)


def read_record(run: RunFolder, base: Path) -> Record:
    """Return what the folder of a run tells of it.

    Args:
        run: the folder.
        base: the folder from which the run gets its name.
    """
    name = os.path.relpath(run.path, base)
    try:
        config = _config(run)
        metrics = read_json(run.metrics)
        curve = read_rows(run.metrics_csv)
    except (ValueError, yaml.YAMLError, csv.Error) as error:
        return Record(run, name, "unreadable", " ".join(str(error).split()))
    if not isinstance(metrics, dict):
        return Record(run, name, "unreadable", f"{run.metrics} holds no object")
    typed, command = _command(run)
    train = metrics.get("train") or {}
    scores = metrics.get("exported") or metrics.get("after") or {}
    if scores.get("loss") is None:
        scores = {**scores, **_last_validation(curve)}
    ledger = metrics.get("data") or {}
    return Record(
        folder=run,
        name=name,
        status=status_of(run),
        error=metrics.get("error"),
        config=config,
        settings=_settings(config),
        typed=typed,
        command=command,
        scores={score: scores.get(score) for score in SCORES},
        by_source=scores.get("by_source") or {},
        steps=metrics.get("steps") or _last(curve, "step"),
        tokens=train.get("tokens"),
        seconds=train.get("seconds"),
        memory_gb=train.get("peak_memory_gb"),
        texts={split: counts for split, counts in ledger.items() if split.startswith("validation")},
        curve=curve,
    )


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of keys with dots; empty mappings have no keys."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            flat |= flattened(inner, f"{key}.")
        else:
            flat[key] = inner
    return flat


def is_within(key: str, options: tuple[str, ...]) -> bool:
    """Return whether a key is one of the options, or lies in one."""
    return any(f"{key}.".startswith(f"{option}.") for option in options)


def _config(run: RunFolder) -> dict[str, Any]:
    if not run.is_run():
        return {}
    config = read_yaml(run.config)
    if not isinstance(config, dict):
        raise ValueError(f"{run.config} holds no options")
    return config


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = flattened(with_defaults(config))
    return {
        key: json.loads(as_key(value))  # a date in a YAML becomes text
        for key, value in settings.items()
        if not is_within(key, _HOUSEKEEPING)
    }


def _command(run: RunFolder) -> tuple[dict[str, str] | None, str | None]:
    """Return the options on the command line, if it is one of lmft.train, and the command."""
    if not run.command.is_file():
        return None, None
    lines = run.command.read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    if not commands:
        return None, None
    command = commands[-1]
    try:
        words = shlex.split(command)
    except ValueError:
        return None, command
    if tuple(words[: len(_SUMMARY)]) != _SUMMARY:
        return None, command
    typed = {}
    for word in words[len(_SUMMARY) :]:
        key, equals, value = word.lstrip("+~").partition("=")
        if equals and not word.startswith("-"):
            typed[key] = value
    return typed, command


def _last(curve: list[dict[str, float]], column: str) -> int | None:
    return int(curve[-1][column]) if curve else None


def _last_validation(curve: list[dict[str, float]]) -> dict[str, float]:
    """Return the scores of the last validation after the first step."""
    for row in reversed(curve):
        if row["step"] > 0 and "val/loss" in row:
            return {score: row[f"val/{score}"] for score in SCORES if f"val/{score}" in row}
    return {}


def as_key(value: Any) -> str:
    """Return a value as a text by which equal values are recognised."""
    return json.dumps(value, sort_keys=True, default=str)
