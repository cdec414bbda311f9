"""Checkpoints of a training: when they are written, and which are kept."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lmft.runs.checkpoint_io import load_weights
from lmft.runs.checkpoints import BEST, LAST, checksum_file, link_as, prune, why_invalid
from lmft.runs.folder import remove_empty
from lmft.system import loop_state

log = logging.getLogger("lmft")


@dataclass(frozen=True)
class Exported:
    """Which weights a run hands over: those of an optimizer step, the `best` by validation loss or the
    `last`.
    """

    step: int
    checkpoint: str


class Checkpoints(Checkpoint):
    """Saves `step=N.ckpt` every so many steps, after each epoch and at the end; keeps the newest and the
    best.

    `last.ckpt` and `best.ckpt` are further names of the newest and of the one with the lowest validation
    loss.

    Args:
        folder: the run's checkpoints/.
        every_n_steps: optimizer steps between checkpoints.
        keep_last: how many of the newest are kept; 0: nothing is saved, -1: all are kept.
        max_disk_gb: gigabytes that they may take together; the newest and the best are always kept.
        appended_files: files of the run that others append to; resuming cuts them back to their length at the
            checkpoint.
        keeps_best_weights: with keep_last=0, save the weights of best.ckpt for the export, and remove them
            after it.
    """

    def __init__(
        self,
        folder: Path,
        every_n_steps: int,
        keep_last: int,
        max_disk_gb: float | None = None,
        appended_files: Sequence[Path] = (),
        keeps_best_weights: bool = False,
    ):
        self.folder, self.every_n_steps, self.appended_files = folder, every_n_steps, appended_files
        self.keep_last, self.max_disk_gb = keep_last, max_disk_gb
        self.keeps_best_weights = keeps_best_weights
        self.best_loss = float("inf")
        self.best_step: int | None = None
        self._is_best_now = False  # whether the last validation was the best
        # Whether the module's weights may be others than the step's checkpoint holds.
        self.has_other_weights = False
        # Whether the state is that of a step whose validation is still to come.
        self._validation_pending = False
        self._saved_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What resuming must know: the loss to beat, what is still to be done, and how long the growing files
        are.
        """
        lengths = {path.name: path.stat().st_size for path in self.appended_files if path.exists()}
        pending = self._validation_pending
        best = {"best_loss": self.best_loss, "best_step": self.best_step}
        return {**best, "validation_pending": pending, "lengths": lengths}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores all of it."""
        self.best_loss, self._validation_pending = state_dict["best_loss"], state_dict["validation_pending"]
        self.best_step = state_dict.get("best_step")
        for path in self.appended_files:
            length = state_dict["lengths"].get(path.name, 0)
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run's checkpoint needs no saving again, unless its validation is to be made up for first."""
        loop_state.count_epoch_from_its_start(trainer)
        self._saved_step = None if self._validation_pending else trainer.global_step
        step_file = self._step_file(trainer)
        if self.best_step == trainer.global_step and trainer.is_global_zero and step_file.exists():
            link_as(step_file, BEST)  # a process that died may have saved the step and not yet named it
        is_named = (self.folder / BEST).exists() or (
            self.best_step == trainer.global_step and step_file.exists()
        )
        if (
            self.best_step is not None and not is_named
        ):  # it lies with another run, whose checkpoint this one began with
            self.best_loss, self.best_step = float("inf"), None
        if self._validation_pending:
            loop_state.begin_with_validation(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when the step says so; a validation that follows is saved with it, as resuming would not make
        it up.
        """
        self._validation_pending = False
        if self._is_due(trainer) and not loop_state.validation_is_next(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the best so far, and what is due; the pass before training sets no mark."""
        if trainer.sanity_checking or (trainer.state.fn != "fit" and trainer.global_step == 0):
            return
        is_due, self._validation_pending = self._validation_pending or self._is_due(trainer), False
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        is_best = self._is_best_now = loss < self.best_loss
        if is_best:
            self.best_loss, self.best_step = loss, trainer.global_step
        if is_best and self._keeps_weights_alone():
            trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        elif is_best and loop_state.is_accumulating(trainer) and self.keep_last != 0:
            # Under no other name: half a step's gradients are not in it.
            trainer.save_checkpoint(self.folder / BEST)
        elif is_best or is_due:
            path = self.save(trainer)
            if is_best and path is not None and trainer.is_global_zero:
                link_as(path, BEST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves each epoch's end."""
        self.save(trainer)

    def save(self, trainer: Trainer, validation_pending: bool = False) -> Path | None:
        """Saves the step, unless that has been done. Returns the checkpoint; None where none are kept.

        validation_pending: whether resuming begins with the validation that follows the step.
        """
        if self.keep_last == 0:
            return None
        path = self._step_file(trainer)
        if self._saved_step != trainer.global_step:
            self._saved_step, self._validation_pending = trainer.global_step, validation_pending
            trainer.save_checkpoint(path)
            if trainer.is_global_zero:
                link_as(path, LAST)
                prune(self.folder, self.keep_last, self.max_disk_gb)
        return path

    def load_best(self, module: LightningModule, last_step: int) -> Exported:
        """Give a trained module the weights of its best validation, unless it has them. Returns which it has
        now.

        last_step: the step of the weights that the module has.
        """
        if self._is_best_now or self.best_step is None:
            return Exported(last_step, "last" if self.best_step is None else "best")
        best = self.folder / BEST
        if not best.exists():
            log.warning("best.ckpt, of step %s, is gone: the last weights are exported", self.best_step)
            return Exported(last_step, "last")
        if found := why_invalid(best):
            log.warning(
                "best.ckpt, of step %s, is broken (%s): the last weights are exported", self.best_step, found
            )
            return Exported(last_step, "last")
        step = load_weights(module, best)
        if step != self.best_step:  # the run went back to an earlier step, and this one was given up
            log.warning("best.ckpt is of step %s, not of step %s", step, self.best_step)
        return Exported(step, "best")

    def remove_best_weights(self) -> None:
        """Remove best.ckpt where no checkpoints are kept: it was there for the export alone."""
        if self.keep_last == 0 and self.keeps_best_weights:
            for path in (self.folder / BEST, checksum_file(self.folder / BEST)):
                path.unlink(missing_ok=True)
            remove_empty([self.folder])

    def _keeps_weights_alone(self) -> bool:
        """Whether best.ckpt is for the export, not for resuming."""
        return self.keeps_best_weights if self.keep_last == 0 else self.has_other_weights

    def _step_file(self, trainer: Trainer) -> Path:
        return self.folder / f"step={trainer.global_step}.ckpt"

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether the step is one of every so many, or the last of its epoch or of all.

        An epoch's end is saved with its last step: from what Lightning has counted a little later it would go
        on a whole epoch further, if `trainer.max_steps` is set.
        """
        is_last = loop_state.is_last_step(trainer)
        return (is_last or trainer.global_step % self.every_n_steps == 0) and not loop_state.is_accumulating(
            trainer
        )
