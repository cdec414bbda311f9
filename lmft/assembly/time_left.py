"""How much of a training is still to come, and how long it will take."""

import math
from typing import Any

from lmft.assembly.parts import Parts
from lmft.training.validations import count_validations


def time_left(
    parts: Parts,
    facts: dict[str, Any],
    done: int,
    speed: float,
    validation_seconds: float,
    checkpoint_seconds: float,
) -> dict[str, Any]:
    """Return what is still to come, and how long it will take; None where steps are not known.

    Args:
        parts: the training.
        facts: its facts.
        done: optimizer steps that it has made already.
        speed: tokens per second.
        validation_seconds: of each validation.
        checkpoint_seconds: of each checkpoint.
    """
    training = facts["training"]
    steps = training["steps"]
    names = ("train_seconds", "validations", "checkpoints", "seconds")
    if steps is None:
        return dict.fromkeys(names)
    tokens_per_step = facts["data"]["tokens_per_epoch"] / training["steps_per_epoch"]
    train_seconds = max(0, steps - done) * tokens_per_step / max(speed, 1e-9)
    validations = _num_validations(parts, steps, done)
    checkpoints = _num_checkpoints(parts, training, steps) - _num_checkpoints(parts, training, done)
    seconds = train_seconds + checkpoints * checkpoint_seconds
    seconds += (validations or 0) * validation_seconds
    return dict(zip(names, (train_seconds, validations, checkpoints, seconds), strict=True))


def _num_validations(parts: Parts, steps: int, done: int) -> int | None:
    """Return how many validations are still to come, the one before the first step included."""
    if not parts.corpus.validations:
        return 0
    trainer = parts.config["trainer"]
    counts = [count_validations(trainer, parts.layout().num_used, number) for number in (steps, done)]
    if counts[0] is None or counts[1] is None:
        return None
    is_before = parts.config["validate_before"] and not done
    return max(0, counts[0] - counts[1]) + is_before


def _num_checkpoints(parts: Parts, training: dict[str, Any], steps: int) -> int:
    """Return how many checkpoints so many steps save: each epoch, every so many steps, at the end."""
    options = parts.config["checkpoint"]
    if options["keep_last"] == 0:
        return 0
    every = options["every_n_steps"]
    per_epoch = training["steps_per_epoch"]
    is_last_due = steps % every == 0 or steps % per_epoch == 0
    both = math.lcm(every, per_epoch)
    return steps // every + steps // per_epoch - steps // both + (not is_last_due)
