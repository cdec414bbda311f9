"""Token-weighted scores of a validation pass."""

import math
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

MONITORED = ("val/loss", "val/perplexity", "val/accuracy")
"""What each validation logs, under the names that callbacks may monitor."""


class Scores(Metric):
    """Sums over all targets of all batches and devices, divided once; so the batch size cannot change them.

    Batches' sums are kept apart and added in float64 on the CPU: no device needs doubles and nothing is
    rounded away.
    """

    full_state_update = False
    nats: list[Tensor]
    correct: list[Tensor]
    targets: list[Tensor]

    def __init__(self, tokens_per_byte: float | None = None):
        """tokens_per_byte: of the text that is scored, where its loss is a likelihood; else None."""
        super().__init__()
        self.tokens_per_byte = tokens_per_byte
        for name in ("nats", "correct", "targets"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, nats: Tensor, correct: Tensor, num_targets: int) -> None:
        """One batch: sum of nats, number of right predictions, number of targets."""
        self.nats.append(nats.detach())
        self.correct.append(correct)
        self.targets.append(torch.tensor(num_targets, device=nats.device))

    def compute(self) -> dict[str, Any]:
        """loss (nats per target), perplexity, accuracy, bits_per_byte, targets.

        Bits per byte are those that coding the text would take, were each of its tokens as likely as a target
        is on average; None where the loss is no likelihood.
        """
        nats, correct, targets = (
            float(dim_zero_cat(state).double().sum()) if len(state) else 0.0
            for state in (self.nats, self.correct, self.targets)
        )
        loss = nats / targets if targets else math.nan
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "accuracy": correct / targets if targets else math.nan,
            "bits_per_byte": loss * self.tokens_per_byte / math.log(2) if self.tokens_per_byte else None,
            "targets": int(targets),
        }


def perplexity(loss: float) -> float:
    """exp(nats per target); infinity where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


class TrainingLoss:
    """The mean training loss (nats per target) of the steps since it was last taken, over all devices."""

    def __init__(self) -> None:
        self.nats: Any = 0.0  # of this device; a tensor on it, so that nothing waits for the device
        self.num_targets = 0

    def add(self, nats: Any, num_targets: int) -> None:
        """Add the sums of an optimizer step."""
        self.nats = self.nats + nats
        self.num_targets += num_targets

    def sums(self, trainer: Trainer) -> tuple[float, int]:
        """Return the sum of nats and the number of targets over all devices."""
        nats = float(self.nats)
        if trainer.world_size == 1:
            return nats, self.num_targets
        device = trainer.strategy.root_device
        mine = torch.tensor([nats, self.num_targets], dtype=torch.float64, device=device)
        nats, num_targets = trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        return nats, int(num_targets)

    def take(self, trainer: Trainer) -> float:
        """Return the mean, and begin anew."""
        nats, num_targets = self.sums(trainer)
        self.nats = 0.0
        self.num_targets = 0
        return nats / max(1, num_targets)
