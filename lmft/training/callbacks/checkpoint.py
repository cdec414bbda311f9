"""Write the checkpoints of a training, and keep the newest and the best."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from lmft.reporting.phase import phase
from lmft.runs.checkpoint_io import load_weights, save_weights
from lmft.runs.checkpoints import BEST, EXPORTED, LAST, link_as, prune, remove, why_invalid
from lmft.runs.folder import remove_empty
from lmft.system import loop_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """The weights that a run exports."""

    step: int  # the optimizer step that they are of
    checkpoint: str  # `best` by validation loss, `last`, or as `checkpoint` of lmft.export names them
    is_measured: bool = True  # whether a validation of the training had these weights, not yet rounded
    dtype: torch.dtype = torch.float32  # number format in model/
    scores: dict[str, Any] | None = None  # if they were measured once more

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        if self.checkpoint.startswith("average:"):
            number = self.checkpoint.partition(":")[2]
            return f"the mean of the weights of {number} checkpoints, up to step {self.step}, in {dtype}"
        return f"the weights of step {self.step} in {dtype}"

    def record(self) -> dict[str, Any]:
        """Return their entry in metrics.json; without scores, if those are of a recorded validation."""
        dtype = str(self.dtype).removeprefix("torch.")
        return {
            "step": self.step,
            "checkpoint": self.checkpoint,
            "dtype": dtype,
            **(self.scores or {}),
        }


class Checkpoints(Checkpoint):
    """Saves `step=N.ckpt` every `every_n_steps`, after each epoch and at the end.

    `last.ckpt` and `best.ckpt` are hard links to the newest one and the one with the lowest validation
    loss.

    Args:
        folder: the run's checkpoints/.
        every_n_steps: optimizer steps between checkpoints.
        keep_last: how many of the newest are kept; 0: none are saved, -1: all are kept.
        max_disk_gb: gigabytes that they may take together; the newest and the best are always kept.
        appended_files: files of the run that others append to; resuming truncates them to their length
            at the checkpoint.
        keeps_best_weights: with keep_last=0, save the best weights as best.ckpt until they are exported.
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
        self.folder = folder
        self.every_n_steps = every_n_steps
        self.keep_last = keep_last
        self.max_disk_gb = max_disk_gb
        self.appended_files = appended_files
        self.keeps_best_weights = keeps_best_weights
        self.best_loss = float("inf")
        self.best_step: int | None = None
        self.is_best_now = False  # whether the last validation was the best
        # Whether the module's weights may differ from those in the step's checkpoint.
        self.has_other_weights = False
        # Whether resuming from this state has to begin with the validation after the step.
        self._validation_pending = False
        self._saved_step: int | None = None
        self._is_closed = False

    def state_dict(self) -> dict[str, Any]:
        """Return best loss and step, whether a validation is pending, and lengths of appended files."""
        lengths = {path.name: path.stat().st_size for path in self.appended_files if path.exists()}
        return {
            "best_loss": self.best_loss,
            "best_step": self.best_step,
            "validation_pending": self._validation_pending,
            "lengths": lengths,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, and truncate the appended files to their lengths at the checkpoint."""
        self.best_loss = state_dict["best_loss"]
        self.best_step = state_dict.get("best_step")
        self._validation_pending = state_dict["validation_pending"]
        for path in self.appended_files:
            length = state_dict["lengths"].get(path.name, 0)
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with a pending validation, if any; make sure that best.ckpt is the best step's."""
        loop_state.count_epoch_from_its_start(trainer)
        self._saved_step = None if self._validation_pending else trainer.global_step
        self._complete_save(trainer)
        if self.best_step is not None and not (self.folder / BEST).exists():
            # It is in the folder of another run, from whose checkpoint this one began.
            self.best_loss = float("inf")
            self.best_step = None
        if self._validation_pending:
            loop_state.begin_with_validation(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if due. If validation is next, save after it: Lightning would not rerun it on resume."""
        self._validation_pending = False
        if self._is_due(trainer) and not loop_state.validation_is_next(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if val/loss improved or a save is due. The validation before training does not count."""
        if trainer.sanity_checking or (trainer.state.fn != "fit" and trainer.global_step == 0):
            return
        is_due = self._validation_pending or self._is_due(trainer)
        self._validation_pending = False
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        is_best = loss < self.best_loss
        self.is_best_now = is_best
        if is_best:
            self.best_loss = loss
            self.best_step = trainer.global_step
        if self._is_closed:
            return
        if is_best and self._saves_best_weights_only():
            with phase("saving the best weights"):
                trainer.save_checkpoint(self.folder / BEST, weights_only=True)
        elif is_best and loop_state.is_accumulating(trainer) and self.keep_last != 0:
            # Not as step=N.ckpt, from which a run may resume: the gradients so far are not in it.
            trainer.save_checkpoint(self.folder / BEST)
        elif is_best or is_due:
            path = self.save(trainer)
            if is_best and path is not None and trainer.is_global_zero:
                link_as(path, BEST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save at the end of each epoch."""
        self.save(trainer)

    def save(self, trainer: Trainer, validation_pending: bool = False) -> Path | None:
        """Save the step, unless it is saved already. Return the checkpoint; None if none are kept.

        Args:
            trainer: the Trainer.
            validation_pending: whether resuming has to begin with the validation after the step.
        """
        if self.keep_last == 0 or self._is_closed:
            return None
        path = self._step_file(trainer)
        if self._saved_step != trainer.global_step:
            self._saved_step = trainer.global_step
            self._validation_pending = validation_pending
            with phase(f"saving the checkpoint of step {trainer.global_step:,}"):
                trainer.save_checkpoint(path)
                if trainer.is_global_zero:
                    link_as(path, LAST)
                    prune(self.folder, self.keep_last, self.max_disk_gb)
        return path

    def close(self) -> None:
        """Leave all checkpoints as they are from now on, as a training resumes from them.

        Later validations determine the weights that are exported, and no more.
        """
        self._is_closed = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the save that a process died in: a finished training does not start once more."""
        if not self._is_closed:
            self._complete_save(trainer)

    def load_best(self, module: LightningModule, last_step: int) -> Exported:
        """Load the best validation's weights into a trained module; return which weights it has now.

        Args:
            module: the trained module.
            last_step: the optimizer step of its weights.
        """
        if self.best_step is None:
            return Exported(last_step, "last")
        if self.is_best_now:
            return Exported(last_step, "best")
        best = self.folder / BEST
        if not best.exists():
            log.warning("best.ckpt, of step %s, is gone: the last weights are exported", self.best_step)
            return Exported(last_step, "last")
        if reason := why_invalid(best):
            log.warning(
                "best.ckpt, of step %s, is broken (%s): the last weights are exported",
                self.best_step,
                reason,
            )
            return Exported(last_step, "last")
        step = load_weights(module, best)
        if step != self.best_step:  # the run was resumed from an earlier step
            log.warning("best.ckpt is of step %s, not of step %s", step, self.best_step)
        return Exported(step, "best", is_measured=step == self.best_step)

    def keep_for_export(self, module: LightningModule, exported: Exported) -> None:
        """Save the weights of a failed export as exported.ckpt, unless a checkpoint has them."""
        is_saved = exported.checkpoint == "best"
        is_saved = is_saved or (self.keep_last != 0 and not self.has_other_weights)
        if self._is_closed and self.is_best_now:
            is_saved = False  # best.ckpt is not of the validation after the checkpoints were closed
        if is_saved:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_weights(module, exported.step, self.folder / EXPORTED)
        except OSError as error:
            log.warning("%s could not be written either: %s", EXPORTED, error.strerror or error)

    def remove_exported_weights(self) -> None:
        """Remove after the export what was kept for it alone."""
        names = [EXPORTED]
        if self.keep_last == 0 and self.keeps_best_weights:
            names.append(BEST)
        for name in names:
            remove(self.folder / name)
        if self.folder.exists():
            remove_empty([self.folder])

    def _complete_save(self, trainer: Trainer) -> None:
        """Link the step as best.ckpt and prune, unless this was done when the step was saved."""
        if self.keep_last == 0 or not trainer.is_global_zero:
            return
        path = self._step_file(trainer)
        is_best = self.best_step == trainer.global_step
        if is_best and path.exists() and not self._saves_best_weights_only():
            link_as(path, BEST)
        prune(self.folder, self.keep_last, self.max_disk_gb)

    def _saves_best_weights_only(self) -> bool:
        """Return whether best.ckpt is for the export, not for resuming."""
        if self.keep_last == 0:
            return self.keeps_best_weights
        return self.has_other_weights

    def _step_file(self, trainer: Trainer) -> Path:
        return self.folder / f"step={trainer.global_step}.ckpt"

    def _is_due(self, trainer: Trainer) -> bool:
        """Return whether the step is complete and a multiple of every_n_steps, or the last of an epoch.

        An epoch's end is saved with its last step: with `trainer.max_steps`, resuming from the counters
        that Lightning has a little later would train for an epoch too many.
        """
        if loop_state.is_accumulating(trainer):
            return False
        return loop_state.is_last_step(trainer) or trainer.global_step % self.every_n_steps == 0
