"""Train on as usual, and validate and export averaged weights: Lightning's callback, exact on resume."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from lmft.errors import UserError

log = logging.getLogger(__name__)
Average = Callable[[Any, Any, Tensor | int], None]


class AveragedWeights(EMAWeightAveraging):
    """Averages the trained weights over the optimizer steps.

    Validations, checkpoints' scores and the export use the average. It is in each checkpoint, so that a
    resumed run has the average of an uninterrupted one, bit for bit.

    What differs from Lightning's callback: before the first step that counts, the weights are used as
    they are; frozen weights stay as they are, and are in no checkpoint; buffers are not averaged, since
    positions and counters are whole numbers; the average is on the model's device; answers to probes
    during validations are the average's.
    """

    def __init__(
        self,
        decay: float | None = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int = 0,
        device: str | None = None,
    ):
        """Create the callback.

        Args:
            decay: share of the average that stays at each update. The first updates have a smaller
                decay, (1 + n) / (10 + n) after n of them, so that the average soon forgets the weights
                that it began with. None: the plain mean of all updates.
            update_every_n_steps: optimizer steps between updates.
            update_starting_at_step: number of optimizer steps before the first update.
            device: where the average is kept; None: on the model's device.

        Raises: UserError for impossible values.
        """
        if decay is not None and not 0 < decay < 1:
            raise UserError(f"decay={decay} must be a share between 0 and 1", fix="decay=0.999")
        if update_every_n_steps < 1 or update_starting_at_step < 0:
            what = "update_every_n_steps is a number from 1, update_starting_at_step one from 0"
            raise UserError(what, fix="update_every_n_steps=1 update_starting_at_step=0")
        super().__init__(device, False, 0.5, update_every_n_steps, update_starting_at_step)
        self.decay = decay
        average = get_swa_multi_avg_fn() if decay is None else _warmed_up(decay)
        self._kwargs = {"multi_avg_fn": average}
        self._is_in_use = False  # whether the module holds the average, and this object its weights

    @property
    def has_average(self) -> bool:
        """True once a step has been counted."""
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether a step counts. step_idx: its index from 0; None at the end of an epoch."""
        if step_idx is None or step_idx < (self.update_starting_at_step or 0):
            return False
        return (step_idx + 1) % self.update_every_n_steps == 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to its device. Raises: UserError if no step would count, or it is rounded."""
        num_steps = trainer.estimated_stepping_batches
        first = max(self.update_starting_at_step or 0, self.update_every_n_steps - 1)
        if first >= num_steps:
            what = f"the first average would be that of step {first + 1}, and training has {num_steps}"
            raise UserError(what, "callbacks: update_starting_at_step, update_every_n_steps")
        trained = [weight for weight in pl_module.parameters() if weight.requires_grad]
        short = [weight.dtype for weight in trained if torch.finfo(weight.dtype).bits < 32]
        if short:
            what = f"an average of weights in {str(short[0]).removeprefix('torch.')} would not move"
            raise UserError(
                what, f"trainer.precision={trainer.precision}", "trainer.precision=bf16-mixed"
            )
        assert self._average_model is not None
        device = self._device or pl_module.device
        self._average_model.to(device)
        averaged = self._average_model.module.parameters()
        for average, weight in zip(averaged, pl_module.parameters(), strict=True):
            if not weight.requires_grad and average.device == weight.device:
                average.data = weight.data  # one copy of each frozen weight is enough

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the average, for the export."""
        if self.has_average:
            super().on_train_end(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the average, for the validation."""
        if self.has_average:
            self._swap_models(pl_module)
            self._is_in_use = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: probes are answered after this, by the average."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its own weights back; checkpoints are saved after this."""
        if self._is_in_use:
            self._swap_models(pl_module)
            self._is_in_use = False

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the average as the checkpoint's weights, and the module's own weights, too."""
        if not self.has_average:
            return
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._is_in_use:  # a signal has stopped a validation
            own = checkpoint["state_dict"]
            checkpoint["state_dict"] = checkpoint["current_model_state"]
            checkpoint["current_model_state"] = own
        frozen = _frozen(pl_module)
        for name in ("state_dict", "current_model_state"):
            state = checkpoint[name]
            checkpoint[name] = {key: state[key] for key in state if key not in frozen}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the average and the module's weights; frozen ones are those of the base model."""
        if self._average_model is None or "averaging_state" not in checkpoint:
            return  # none of the steps so far has counted
        complete = dict(checkpoint)
        base = {name: value.clone() for name, value in _frozen(pl_module).items()}
        for name in ("state_dict", "current_model_state"):
            complete[name] = {**base, **checkpoint[name]}
        super().on_load_checkpoint(trainer, pl_module, complete)


def averages_weights(trainer: Trainer) -> bool:
    """Return whether one of the Trainer's callbacks averages the weights."""
    callbacks: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return any(isinstance(callback, AveragedWeights) for callback in callbacks)


def _frozen(module: LightningModule) -> dict[str, Tensor]:
    """Return the frozen weights by each of their names."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: weight.detach() for name, weight in named if not weight.requires_grad}


def _warmed_up(decay: float) -> Average:
    """Return the update of an exponential moving average whose decay grows to `decay`."""

    def update(averages: Any, weights: Any, num_averaged: Tensor | int) -> None:
        number = int(num_averaged)
        now = min(decay, (1 + number) / (10 + number))
        get_ema_multi_avg_fn(now)(averages, weights, num_averaged)

    return update
