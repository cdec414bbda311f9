"""Callbacks of `lmft.tune`: given learning rates, and what each optimizer step costs."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lmft.data.batch import Batch
from lmft.system import loop_state, signals
from lmft.training.range_test import has_diverged


class GivenRates(Callback):
    """Gives each optimizer step a learning rate of its own, whatever the schedule; keeps the losses.

    Groups of weights keep the proportions of their rates. The training ends when it diverges.
    """

    def __init__(self, rates: Sequence[float], base: float):
        """Create the callback.

        Args:
            rates: of each step, in the place of `base`.
            base: the rate that the optimizer was made with.
        """
        self.rates = rates
        self.base = base
        self.losses: list[float] = []
        """Nats per target of each step, before its update."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals end the process at once: there is nothing to be saved."""
        signals.install_handlers()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Set the rate of the step."""
        rate = self.rates[min(trainer.global_step, len(self.rates) - 1)]
        for group in optimizer.param_groups:
            group["lr"] = group.get("initial_lr", self.base) * (rate / self.base)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss of a complete step."""
        if loop_state.is_accumulating(trainer):
            return
        step: Any = pl_module.step
        step.outcomes.read()
        self.losses.append(step.outcomes.latest.loss)
        if has_diverged(self.losses, self.losses[0]):
            trainer.should_stop = True


class SignalsEndAtOnce(Callback):
    """Lets signals end the process at once: there is nothing to be saved."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the handlers."""
        signals.install_handlers()


class BatchTimes(Callback):
    """Times validations batch by batch, for each of their DataLoaders."""

    def __init__(self) -> None:
        self.seconds: dict[int, list[float]] = {}
        """Of each batch, loading included, by the number of its DataLoader."""
        self._last = 0.0

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._last = time.perf_counter()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the time since the end of the batch before."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.setdefault(dataloader_idx, []).append(now - self._last)
        self._last = now


class StepCosts(Callback):
    """Times optimizer steps, from the end of the first one on, and counts their tokens.

    A micro-batch that does not fit into memory is split, which `fits` tells.
    """

    def __init__(self, stops_if_split: bool = True) -> None:
        """Create the callback. stops_if_split: whether the training ends when one is split."""
        self.ends: list[float] = []
        """Times of time.perf_counter at the end of each step."""
        self.tokens: list[int] = []
        """Of each step."""
        self.fits = True
        self.stops_if_split = stops_if_split
        self._num_tokens = 0

    @property
    def tokens_per_second(self) -> float:
        """The speed of all steps but the first."""
        return sum(self.tokens[1:]) / max(self.ends[-1] - self.ends[0], 1e-9)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch, and time the step that it completes."""
        step: Any = pl_module.step
        self._num_tokens += batch.num_tokens
        if step.num_parts > 1:
            self.fits = False
            trainer.should_stop = trainer.should_stop or self.stops_if_split
        if loop_state.is_accumulating(trainer):
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.tokens.append(self._num_tokens)
        self._num_tokens = 0
