"""Train on as usual, and validate and export averaged weights: Lightning's callback, exact on resume."""

import logging
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor

from lmft.errors import UserError

log = logging.getLogger(__name__)


class AveragedWeights(EMAWeightAveraging):
    """Averages the trained weights over the optimizer steps.

    Validations, checkpoints' scores and the export use the average. It is in each checkpoint, so that a
    resumed run has the average of an uninterrupted one, bit for bit.

    What differs from Lightning's callback: before the first step that counts, the weights are used as
    they are; frozen weights stay as they are, and are in no checkpoint; buffers are not averaged, since
    positions and counters are whole numbers; the average is on the model's device; answers to probes
    during validations are the average's; the number of updates is not read from a GPU in each step.
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
        self._num_updates = 0
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
        self._num_updates = int(self._average_model.n_averaged)
        averaged = self._average_model.module.parameters()
        for average, weight in zip(averaged, pl_module.parameters(), strict=True):
            if not weight.requires_grad and average.device == weight.device:
                average.data = weight.data  # one copy of each frozen weight is enough

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after a step that counts."""
        step = trainer.global_step
        if step > self._latest_update_step and self.should_update(step_idx=step - 1):
            self._update(pl_module)
            self._latest_update_step = step

    @torch.no_grad()
    def _update(self, module: LightningModule) -> None:
        """Update the average as torch's AveragedModel does; frozen weights are left alone."""
        average = self._average_model
        assert average is not None
        both = zip(average.module.parameters(), module.parameters(), strict=True)
        pairs = [(own, weight) for own, weight in both if weight.requires_grad]
        owns = [own.detach() for own, _ in pairs]
        weights = [weight.detach().to(own.device) for own, weight in pairs]
        if self._num_updates:
            torch._foreach_lerp_(owns, weights, self._share)  # pyright: ignore[reportPrivateImportUsage]
        else:
            torch._foreach_copy_(owns, weights)  # pyright: ignore[reportPrivateImportUsage]
        for own, buffer in zip(average.module.buffers(), module.buffers(), strict=True):
            own.copy_(buffer)
        average.n_averaged += 1
        self._num_updates += 1

    @property
    def _share(self) -> float:
        """The share of the weights in the next average; an exponential one's decay grows to `decay`."""
        number = self._num_updates
        if self.decay is None:
            return 1 / (number + 1)
        return 1 - min(self.decay, (1 + number) / (10 + number))

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
