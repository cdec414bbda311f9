"""Token-weighted scores of a validation pass."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

LOGGED = ("loss", "perplexity", "accuracy")
"""Scores that each validation logs."""


def names_of_logged(sources: Iterable[str] = ()) -> list[str]:
    """Return the names of the scores that each validation logs, which callbacks may monitor.

    sources: the names of a mixture's validation texts.
    """
    prefixes = ["val/", *(f"val/{name}/" for name in sources)]
    return [prefix + score for prefix in prefixes for score in LOGGED]


def logged_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a validation under the names they are logged by."""
    logged = {f"val/{score}": float(scores[score]) for score in LOGGED}
    for name, own in scores.get("by_source", {}).items():
        logged |= {f"val/{name}/{score}": float(own[score]) for score in LOGGED}
    return logged


@dataclass(frozen=True)
class ValidationText:
    """A validation text that is measured by itself.

    >>> ValidationText("news", weight=0.7)
    ValidationText(name='news', weight=0.7, tokens_per_byte=None)
    """

    name: str = ""
    """The source of a mixture that it belongs to; "" if there is one text only."""
    weight: float = 1.0
    """Its part in `val/loss`; 0 if it is not trained on."""
    tokens_per_byte: float | None = None
    """Tokens per byte of the text, for bits per byte; None if the loss is no likelihood of the text."""


class Scores(Metric):
    """Token-weighted scores: sums over all targets of all batches and devices, divided once at the end.

    So the batch size does not change them. The sums of each batch are kept and added in float64 on the
    CPU, which avoids rounding and needs no device with doubles.
    """

    full_state_update = False
    nats: list[Tensor]
    correct: list[Tensor]
    targets: list[Tensor]

    def __init__(self, tokens_per_byte: float | None = None):
        """Create the metric.

        Args:
            tokens_per_byte: tokens per byte of the validation text, for bits per byte; None if the loss
                is no likelihood of the text.
        """
        super().__init__()
        self.tokens_per_byte = tokens_per_byte
        for name in ("nats", "correct", "targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, nats: Tensor, correct: Tensor, num_targets: int) -> None:
        """Add a batch: sum of nats [], number of right predictions [], number of targets."""
        self.nats.append(nats.detach())
        self.correct.append(correct)
        self.targets.append(torch.tensor(num_targets, device=nats.device))

    def compute(self) -> dict[str, Any]:
        """Return loss (nats per target), perplexity, accuracy, bits_per_byte and targets (their number).

        Bits per byte convert the loss by the text's tokens per byte; None if the loss is no likelihood.
        """
        targets = _total(self.targets)
        loss = math.nan
        accuracy = math.nan
        if targets:
            loss = _total(self.nats) / targets
            accuracy = _total(self.correct) / targets
        bits_per_byte = None
        if self.tokens_per_byte:
            bits_per_byte = loss * self.tokens_per_byte / math.log(2)
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": accuracy,
            "bits_per_byte": bits_per_byte,
            "targets": int(targets),
        }


def overall(texts: Sequence[ValidationText], scores: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the scores of a mixture: loss and accuracy are means by the texts' weights.

    Args:
        texts: the validation texts.
        scores: the scores of each, by name.
    """
    weights = {text.name: text.weight for text in texts if text.weight}
    total = sum(weights.values())
    means = {
        score: sum(weight * scores[name][score] for name, weight in weights.items()) / total
        for score in ("loss", "accuracy")
    }
    return {
        "loss": means["loss"],
        "perplexity": perplexity(means["loss"]),
        "accuracy": means["accuracy"],
        "bits_per_byte": None,
        "targets": sum(scores[name]["targets"] for name in weights),
        "by_source": dict(scores),
    }


def _total(state: list[Tensor]) -> float:
    return float(dim_zero_cat(state).double().sum()) if len(state) else 0.0


def perplexity(loss: float) -> float:
    """Return exp(nats per target); infinity if that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


class TrainingLoss:
    """The mean training loss (nats per target) of the steps since it was last taken, over all
    devices.
    """

    def __init__(self) -> None:
        self.nats = 0.0
        self.num_targets = 0
        self.num_taken = 0
        """Targets of the mean that was taken last."""

    def add(self, nats: float, num_targets: int) -> None:
        """Add the sums of an optimizer step over all devices."""
        self.nats += nats
        self.num_targets += num_targets

    def take(self) -> float:
        """Return the mean, and reset the sums."""
        mean = self.nats / max(1, self.num_targets)
        self.num_taken = self.num_targets
        self.nats = 0.0
        self.num_targets = 0
        return mean
