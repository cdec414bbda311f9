"""End a training after a time: the step is completed and saved, and the same command continues."""

from collections.abc import Iterable
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer

from lmft.system import loop_state
from lmft.training.callbacks.checkpoint import Checkpoints


class TimeLimit(Timer, Checkpoint):
    """Lightning's Timer, after which a run resumes exactly, with the whole time again.

    Lightning would validate first and save that as if the training had been meant to validate there;
    its timer also counts the time of earlier starts, so that a resumed training would end at once. Here
    the step is saved before the last validation, which then counts for the export alone.

    At least one step is made. A validation that has begun is completed. `trainer.min_steps` and
    `trainer.min_epochs` come first.

    It is a `Checkpoint` so that Lightning calls it after other callbacks, which have counted the step
    then.
    """

    option = "trainer.max_time"
    """The option that sets it, for messages."""
    is_over = False
    """Whether it has ended the training."""

    @property
    def state_key(self) -> str:
        """The option, so that a training may have several limits."""
        return self._generate_state_key(option=self.option)

    def on_fit_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the time begins with the first step."""

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """End after a complete step; if a validation or the epoch's end is next, that hook does."""
        if self._interval == "epoch" or loop_state.is_accumulating(trainer):
            return
        if not loop_state.validation_is_next(trainer) and not loop_state.is_last_step(trainer):
            self._end_if_over(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End after a validation between two steps of an epoch."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit" or self._interval == "epoch" or self.is_over:
            return
        if not loop_state.is_accumulating(trainer) and not loop_state.is_last_step(trainer):
            self._end_if_over(trainer)

    def on_train_epoch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """End between two epochs."""
        if not self.is_over and not loop_state.training_is_complete(trainer):
            self._end_if_over(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a resumed training has the whole time."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the time that Lightning's timer has recorded does not count."""

    def _end_if_over(self, trainer: Trainer) -> None:
        if trainer.should_stop or not loop_state.can_stop_early(trainer):
            return
        left = self.time_remaining()
        if left is None or not trainer.strategy.broadcast(left <= 0):
            return
        self.is_over = True
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        checkpoints = next(each for each in callbacks if isinstance(each, Checkpoints))
        checkpoints.save(trainer)
        checkpoints.close()
        trainer.should_stop = True


def time_limit_that_ended(callbacks: Iterable[Callback]) -> TimeLimit | None:
    """Return the time limit that has ended a training; None if it ended otherwise."""
    return next((each for each in callbacks if isinstance(each, TimeLimit) and each.is_over), None)
