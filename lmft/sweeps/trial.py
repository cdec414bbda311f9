"""A trial of a search: how its training finds the search, and what became of it."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from lmft.runs.folder import RunFolder
from lmft.system.files import read_json

VARIABLE = "LMFT_TRIAL"
"""The environment variable by which a training finds its search; Hydra sets it in the job's process."""


class Pruned(Exception):
    """The search ends this trial early.

    Args:
        step: the optimizer step of the validation after which it ended.
        loss: that of this validation, in nats per target.
    """

    def __init__(self, step: int, loss: float):
        super().__init__(f"pruned at step {step}, with a validation loss of {loss:.4f}")
        self.step = step
        self.loss = loss


@dataclass(frozen=True)
class TrialReference:
    """The place where a trial reports its validations, and learns whether it is pruned."""

    journal: str
    number: int
    pruner: str
    prune_after: int
    startup_trials: int

    def as_text(self) -> str:
        """Return the value of the environment variable."""
        return json.dumps(asdict(self))

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return the trial that this process trains; None if it trains none that may be pruned."""
        text = os.environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None


@dataclass(frozen=True)
class Outcome:
    """The result of a trial, as a search is told it."""

    state: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...] = ()
    """The numbers to minimise, of a complete trial."""
    error: str | None = None


def recorded_outcome(folder: Path, objectives: Sequence[str]) -> Outcome | None:
    """Return the outcome in a trial's metrics.json; None if the trial has not ended.

    Args:
        folder: the trial's run folder.
        objectives: the numbers to minimise.
    """
    metrics = read_json(RunFolder(folder).metrics)
    status = metrics.get("status")
    if status == "pruned":
        return Outcome("pruned")
    if status == "failed" and not metrics.get("export_pending"):
        return Outcome("failed", error=metrics.get("error"))
    if status != "complete":
        return None
    return _outcome(metrics, objectives)


def outcome_of_job(folder: Path, objectives: Sequence[str], returned: Any) -> Outcome:
    """Return the outcome of a trial's job that has just ended.

    Args:
        folder: the trial's run folder.
        objectives: the numbers to minimise.
        returned: Hydra's JobReturn.
    """
    try:
        value = returned.return_value
    except Exception as error:  # an error that the job did not report itself
        return Outcome("failed", error=f"{type(error).__name__}: {error}")
    outcome = recorded_outcome(folder, objectives)
    metrics = read_json(RunFolder(folder).metrics)
    if isinstance(value, float) and math.isnan(value):  # refused, perhaps before it wrote anything
        return Outcome("failed", error=metrics.get("error"))
    return outcome or _outcome(metrics, objectives)


def _outcome(metrics: dict[str, Any], objectives: Sequence[str]) -> Outcome:
    train = metrics.get("train") or {}
    scores = metrics.get("exported") or metrics.get("after") or {}
    known = {
        "loss": scores.get("loss"),
        "seconds": train.get("seconds"),
        "memory": train.get("peak_memory_gb"),
    }
    values = []
    for name in objectives:
        value = known[name]
        if value is None or not math.isfinite(value):
            return Outcome("failed", error=f"no finite {name}")
        values.append(value)
    return Outcome("complete", tuple(values))
