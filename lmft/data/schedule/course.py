"""Course: where a training's micro-batches are in the text, and which share of the training is over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Course:
    """The course of a training through the epochs of its text.

    A function of (epoch, position) alone, so that workers, ranks and resuming cannot change it.

    Args:
        per_epoch: micro-batches of an epoch on each device.
        accumulate: micro-batches of an optimizer step on each device.
        num_steps: optimizer steps of the training; 0: not known, then its share is 0.
        start: micro-batches of the text that come before the training's first one: those that the parent
            of a branch was trained on.
    """

    per_epoch: int = 1
    accumulate: int = 1
    num_steps: int = 0
    start: int = 0

    def place(self, epoch: int, position: int) -> tuple[int, int]:
        """Return epoch and position in the text of a micro-batch of this training."""
        if not self.start:
            return epoch, position
        return divmod(self.start + epoch * self.per_epoch + position, self.per_epoch)

    def share(self, epoch: int, position: int) -> float:
        """Return the share of the training's optimizer steps that come before a micro-batch's step."""
        if not self.num_steps:
            return 0.0
        steps_per_epoch = -(-self.per_epoch // self.accumulate)
        return (epoch * steps_per_epoch + position // self.accumulate) / self.num_steps
