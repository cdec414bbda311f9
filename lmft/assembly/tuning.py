"""Measure a training without beginning it: its learning rate range, and sizes of its micro-batch."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch

from lmft.assembly.briefly import train_briefly
from lmft.assembly.parts import Parts
from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.training.callbacks.progress import Progress
from lmft.training.callbacks.tuning import GivenRates, StepCosts
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.memory import is_out_of_memory
from lmft.training.micro_batches import (
    DOES_NOT_FIT,
    FITS,
    MicroBatch,
    candidates,
    free_gb,
    needed_gb,
    peak_gb,
    reset_peak,
)
from lmft.training.nonfinite import NonFiniteStepError
from lmft.training.range_test import RangeTest, has_diverged, rising_rates

log = logging.getLogger("lmft")


def range_test(parts: Parts, options: Mapping[str, Any]) -> RangeTest:
    """Train while the learning rate rises exponentially, and return the losses (Smith 2017).

    The steps are those of the training: the same examples in the same order, accumulated, clipped. The
    model is dropped afterwards.

    Args:
        parts: the training.
        options: those of `tune`.

    Raises: UserError if the optimizer has no learning rate.
    """
    module = parts.module()
    rates = rising_rates(options["min_lr"], options["max_lr"], options["num_steps"])
    given = GivenRates(rates, _base_rate(parts))
    progress = Progress(LatestMetrics())
    with suppress(NonFiniteStepError):  # the training has diverged; its losses tell where
        train_briefly(parts, module, [given, progress], num_steps=len(rates) + 1)
    first_loss, *losses = given.losses
    return RangeTest(
        rates=rates[: len(losses)],
        losses=losses,
        first_loss=first_loss,
        has_diverged=len(losses) < len(rates) or has_diverged(losses, first_loss),
    )


def timed_micro_batches(parts: Parts, device: torch.device, num_steps: int) -> list[MicroBatch]:
    """Time optimizer steps of the same examples in micro-batches of several sizes, the smallest first.

    On a GPU it ends with the first size that does not fit; elsewhere before one that would need more
    memory than there is. The learning rate is 0, so that the weights stay as they are.

    Args:
        parts: the training.
        device: where it trains.
        num_steps: optimizer steps that are timed, after one more.
    """
    num_examples = parts.data.batch_size * parts.config["trainer"]["accumulate_grad_batches"]
    module = parts.module()
    measured: list[MicroBatch] = []
    for size in candidates(num_examples, parts.data.batch_size):
        found = _untried(measured, size, num_examples // size, device)
        if found is None:
            reset_peak(device)
            costs = _costs(parts, module, size, num_examples // size, num_steps)
            speed = costs.tokens_per_second if costs.fits else None
            memory = peak_gb(device) if costs.fits else None
            outcome = FITS if costs.fits else DOES_NOT_FIT
            found = MicroBatch(size, num_examples // size, speed, memory, outcome)
        measured.append(found)
        log.info("micro-batch of %d: %s", size, _told(found))
        if found.tokens_per_second is None:
            break
    return measured


def _told(found: MicroBatch) -> str:
    if found.tokens_per_second is None or found.memory_gb is None:
        return found.outcome
    return f"{found.tokens_per_second:,.0f} tokens/s, {found.memory_gb:.2f} GB"


def _untried(
    measured: Sequence[MicroBatch], size: int, accumulate: int, device: torch.device
) -> MicroBatch | None:
    """Return a size that is left out because the process would need more memory than there is."""
    free = free_gb()
    if free is None or not measured or device.type == "cuda":
        return None
    more = needed_gb(measured, size) - (measured[-1].memory_gb or 0.0)
    if more <= free:
        return None
    outcome = f"not tried: it would need {more:.2g} GB more, and {free:.2g} GB are free"
    return MicroBatch(size, accumulate, None, None, outcome)


def _costs(parts: Parts, module: LanguageModel, size: int, accumulate: int, num_steps: int) -> StepCosts:
    """Return the costs of optimizer steps in micro-batches of a size, or that it does not fit."""
    divided = replace(parts, data=replace(parts.data, batch_size=size))
    options = {
        "accumulate_grad_batches": accumulate,
        "limit_train_batches": 1.0,  # it counts micro-batches
        "enable_progress_bar": False,
    }
    costs = StepCosts()
    module.step.load_state_dict({"parts": 1, "skipped": 0})
    try:
        train_briefly(divided, module, [GivenRates([0.0], 1.0), costs], num_steps + 1, options)
    except (UserError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        costs.fits = False
    return costs


def _is_lack_of_memory(error: Exception) -> bool:
    return is_out_of_memory(error) or (isinstance(error, UserError) and error.what == "out of memory")


def _base_rate(parts: Parts) -> float:
    """Return the optimizer's learning rate. Raises: UserError if it has none."""
    rate = parts.config["optimizer"].get("lr")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        what = f"optimizer.lr={rate} is not a learning rate above 0"
        raise UserError(what, fix="optimizer.lr=1e-4 tune.find=lr, or tune.find=batch")
    return float(rate)
