"""Check before training that the validations that callbacks need will take place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmft.errors import UserError


@dataclass(frozen=True)
class Monitor:
    """A score of validations that a callback monitors."""

    argument: str
    """The option, for messages: callbacks.NAME.monitor=val/loss."""
    score: str
    """The score's name: val/loss."""
    is_read_each_epoch: bool = False
    """Whether the callback reads the score at the end of each epoch, the first one included."""


def check_validations(
    options: Mapping[str, Any],
    monitors: Sequence[Monitor],
    num_batches: int,
    num_steps: int,
    measured: Sequence[str],
) -> None:
    """Raise UserError, before the first step, if a validation that is needed would not take place.

    Args:
        options: the config's `trainer`.
        monitors: the monitors of the config's callbacks.
        num_batches: micro-batches per epoch and device.
        num_steps: optimizer steps of the whole training.
        measured: the names of the scores that validations log; none without validation text.
    """
    interval = options["val_check_interval"]
    every_n_epochs = options["check_val_every_n_epoch"]
    _check_measured(monitors, measured)
    if options["limit_val_batches"] == 0:
        if monitors:
            what = f"{monitors[0].argument}: trainer.limit_val_batches=0 leaves no validation"
            raise UserError(what, fix="trainer.limit_val_batches=1.0, or callbacks=none")
        return
    if isinstance(interval, int) and every_n_epochs is not None and interval > num_batches:
        option = f"trainer.val_check_interval={interval}"
        what = f"{option} is more than the {num_batches} micro-batches of an epoch"
        fix = (
            f"trainer.val_check_interval={num_batches}; "
            "trainer.check_val_every_n_epoch=null counts across epochs"
        )
        raise UserError(what, fix=fix)
    if not isinstance(interval, int | float):
        return  # an interval of time: the batch of the first validation is unknown
    first = _batches_to_first(interval, every_n_epochs, num_batches)
    for monitor in monitors:
        end = _batches_of(num_steps, options["accumulate_grad_batches"], num_batches)
        event = "training ends"
        if monitor.is_read_each_epoch and num_batches < end:
            end = num_batches
            event = "the first epoch ends"
        if first > end:
            what = (
                f"{monitor.argument}: {event} after {end} micro-batches, "
                f"its first validation comes after {first}"
            )
            earlier = f"trainer.check_val_every_n_epoch=null trainer.val_check_interval={end}"
            fix = f"{earlier}, or a longer training"
            raise UserError(what, "trainer.val_check_interval and trainer.check_val_every_n_epoch", fix)


def count_validations(options: Mapping[str, Any], num_batches: int, num_steps: int) -> int | None:
    """Return how many validations take place during a training; None if their interval is a time.

    One after the last step is not counted, unless it is due.

    Args:
        options: the config's `trainer`.
        num_batches: micro-batches per epoch and device.
        num_steps: optimizer steps of the whole training.
    """
    interval = options["val_check_interval"]
    every_n_epochs = options["check_val_every_n_epoch"]
    if options["limit_val_batches"] == 0:
        return 0
    if not isinstance(interval, int | float):
        return None
    end = _batches_of(num_steps, options["accumulate_grad_batches"], num_batches)
    if every_n_epochs is None:
        return end // _batches_to_first(interval, None, num_batches)
    each = _batches_to_first(interval, 1, num_batches)
    num_epochs, num_over = divmod(end, num_batches)
    count = num_epochs // every_n_epochs * (num_batches // each)
    is_checked = (num_epochs + 1) % every_n_epochs == 0
    return count + is_checked * (num_over // each)


def _check_measured(monitors: Sequence[Monitor], measured: Sequence[str]) -> None:
    for monitor in monitors:
        if monitor.score not in measured:
            what = f"{monitor.argument}: there is no validation text"
            fix = "data.validation=FILE or data.validation_fraction=0.05; or callbacks=none"
            raise UserError(what, fix=fix)


def _batches_to_first(interval: int | float, every_n_epochs: int | None, num_batches: int) -> int:
    """Return the number of micro-batches up to the first validation.

    Args:
        interval: `trainer.val_check_interval`: micro-batches, or (a float) a share of an epoch.
        every_n_epochs: `trainer.check_val_every_n_epoch`; None: the interval counts across epochs.
        num_batches: micro-batches of an epoch.
    """
    if not isinstance(interval, int):
        interval = max(1, int(num_batches * interval))
    if every_n_epochs is None:
        return interval
    return (every_n_epochs - 1) * num_batches + interval


def _batches_of(num_steps: int, accumulate: int, num_batches: int) -> int:
    """Return the number of micro-batches of `num_steps`; the last step of an epoch may have fewer."""
    steps_per_epoch = -(-num_batches // accumulate)
    num_epochs, num_over = divmod(num_steps, steps_per_epoch)
    return num_epochs * num_batches + num_over * accumulate
