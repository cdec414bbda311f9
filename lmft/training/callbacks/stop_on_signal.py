"""Stop a training on SIGTERM or Ctrl-C: complete the step, save it, then end."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lmft.system import loop_state, signals
from lmft.system.signals import Stopped
from lmft.training.callbacks.checkpoint import Checkpoints


class StopOnSignal(Checkpoint):
    """Saves the current step after a signal to any process, and raises `Stopped` in all of them.

    A validation is interrupted; resuming runs it again from its start. A validation between
    micro-batches of one step cannot be saved; resuming begins with the last checkpoint then.

    It is a `Checkpoint` so that Lightning calls it after all other callbacks, which have counted the
    step then. If SLURM requeues the job, Lightning's signal handlers stay installed too.

    Args:
        checkpoints: the callback that saves.
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Defer signals to the end of a step."""
        _replace_lightnings_handlers(trainer)
        signals.defer_signals()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop after a complete step; if a validation or the epoch's end is next, that hook stops."""
        if loop_state.is_accumulating(trainer) or loop_state.validation_is_next(trainer):
            return
        if not loop_state.is_last_batch_of_epoch(trainer):
            signum = signals.recorded_signal() or 0
            if trainer.world_size > 1:  # the processes have told each other in the optimizer step
                module: Any = pl_module
                signum = module.step.outcomes.signum
            self._stop(trainer, signum)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at the end of an epoch."""
        self._stop_if_requested(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals end the process at once again: everything is saved."""
        signals.raise_signals()
        self._stop_if_requested(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals end a validation before or after training at once."""
        if trainer.state.fn != "fit":
            _replace_lightnings_handlers(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop a validation during training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_requested(trainer, validation_pending=True)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Let signals end the process at once, and the processes it started, which may wait for it."""
        signals.raise_signals()
        if isinstance(exception, Stopped):
            exception.is_silent = not trainer.is_global_zero
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(exception.signum)

    def _stop_if_requested(self, trainer: Trainer, validation_pending: bool = False) -> None:
        signum = signals.recorded_signal() or 0
        if trainer.world_size > 1:
            mine = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(mine, reduce_op="max"))
        self._stop(trainer, signum, validation_pending)

    def _stop(self, trainer: Trainer, signum: int, validation_pending: bool = False) -> None:
        """Save the step, and raise `Stopped`. signum: of the signal; 0: there was none."""
        if signum:
            signals.record_signal(signum)
            saved = None
            if not loop_state.is_accumulating(trainer):
                saved = self.checkpoints.save(trainer, validation_pending)
            raise Stopped(signum, saved)


def _replace_lightnings_handlers(trainer: Trainer) -> None:
    """Install lmft's signal handlers, unless SLURM requeues the job.

    The collective calls in Lightning's handlers could wait for ever.
    """
    if not loop_state.requeues_on_slurm(trainer):
        signals.install_handlers()
        loop_state.send_no_signals(trainer)
