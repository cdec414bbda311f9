"""A signal amid a training: the step ends, is saved, and nothing is lost."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lmft.system import loop_state, signals
from lmft.system.signals import Stopped
from lmft.training.callbacks.checkpoint import Checkpoints


class StopOnSignal(Checkpoint):
    """After a SIGTERM or Ctrl-C to any of the processes saves the current step and raises `Stopped` in all of
    them.

    In a validation it does not wait for the end: resuming begins with the whole of it. Where a validation
    falls amid the micro-batches of a step, nothing can be saved; the last checkpoint is where resuming begins
    then.

    It is a `Checkpoint` so that Lightning calls it last, when all others have counted the step. Where SLURM
    requeues the job, Lightning's handlers stay in place beside ours.

    checkpoints: what saves.
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a signal waits for the end of a step."""
        _take_over(trainer)
        signals.defer_signals()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops where the step is whole. A validation or an epoch's end that comes now is stopped at itself."""
        if loop_state.is_accumulating(trainer) or loop_state.validation_is_next(trainer):
            return
        if not loop_state.is_last_batch_of_epoch(trainer):
            self._stop_if_requested(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops."""
        self._stop_if_requested(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """All is saved: from here on a signal ends the process at once."""
        signals.raise_signals()
        self._stop_if_requested(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before and after training a signal ends a validation at once."""
        if trainer.state.fn != "fit":
            _take_over(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stops a validation amid training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_requested(trainer, validation_pending=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Signals wait no longer; processes that this one has started, and that may be waiting for it, end
        too.
        """
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
        if signum:
            signals.record_signal(signum)
            saved = (
                None
                if loop_state.is_accumulating(trainer)
                else self.checkpoints.save(trainer, validation_pending)
            )
            raise Stopped(signum, saved)


def _take_over(trainer: Trainer) -> None:
    """Lightning has set handlers of its own, whose collective calls could wait for ever."""
    if not loop_state.requeues_on_slurm(trainer):
        signals.install_handlers()
