"""Estimate time and memory of a training from three of its steps, and begin nothing."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from lightning import Trainer

from lmft.assembly.briefly import brief_trainer, train_briefly
from lmft.assembly.parts import Parts
from lmft.assembly.preflight import find_facts
from lmft.assembly.time_left import time_left
from lmft.data.schedule.layout import limited
from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.reporting.facts import print_estimate, print_facts
from lmft.runs.branch import is_branch
from lmft.runs.checkpoint_io import step_of
from lmft.runs.resume import checkpoint_to_resume
from lmft.runs.run import Run
from lmft.training.callbacks.progress import Progress
from lmft.training.callbacks.tuning import BatchTimes, SignalsEndAtOnce, StepCosts
from lmft.training.cpu import keep_freed_memory_in_process
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.micro_batches import (
    FITS,
    MicroBatch,
    free_gb,
    needed_gb,
    peak_gb,
    reset_peak,
)
from lmft.training.nonfinite import NonFiniteStepError
from lmft.training.trainer import try_out

_NUM_STEPS = 3
_VALIDATION_BATCHES = 4  # timed, of each validation text
_PART = 4  # the micro-batch that shows how memory grows is this many times smaller


def dry_run(parts: Parts, run: Run) -> dict[str, Any]:
    """Print the facts of a training, then what it will take; return them. Nothing is written.

    Args:
        parts: the training.
        run: its run, which is not begun.

    Raises: UserError if a step cannot be made.
    """
    if not torch.cuda.is_available():
        keep_freed_memory_in_process()
    trainer = try_out(parts.config)
    module = parts.module()
    facts = find_facts(parts, module, trainer, run.folder, run.choices)
    print_facts(facts)
    facts["estimate"] = None
    if trainer.world_size == 1:
        done = _steps_done(parts.config, run)
        facts["estimate"] = _estimate(parts, module, trainer.strategy.root_device, facts, done)
    print_estimate(facts)
    return {"status": "dry", "facts": facts}


def _steps_done(config: dict[str, Any], run: Run) -> int:
    """Return the step of the checkpoint that the training would continue from. Raises: UserError."""
    if is_branch(config):
        return 0
    checkpoint = checkpoint_to_resume(run.paths, run.name, str(config["resume"]))
    return 0 if checkpoint is None else step_of(checkpoint)


def _estimate(
    parts: Parts, module: LanguageModel, device: torch.device, facts: dict[str, Any], done: int
) -> dict[str, Any]:
    """Make three steps, a few batches of validation and a checkpoint; return what the rest will take.

    done: optimizer steps that the training has made already.
    """
    measured = []
    size = parts.data.batch_size
    if size > 1:
        measured.append(_small(parts, module, device, max(1, size // _PART)))
    reset_peak(device)
    costs, trainer = _steps(parts, module, size, parts.config["trainer"]["accumulate_grad_batches"])
    num_parts = module.step.num_parts
    validation_seconds = _validation_seconds(parts, module)
    measured.append(_micro_batch(size, costs, peak_gb(device)))
    checkpoint_seconds, checkpoint_bytes = _checkpoint(module, trainer)
    facts["disk"]["checkpoint_bytes"] = checkpoint_bytes
    speed = costs.tokens_per_second
    return {
        "steps_timed": _NUM_STEPS,
        "steps_done": done,
        "tokens_per_second": speed,
        "seconds_per_step": (costs.ends[-1] - costs.ends[0]) / max(1, len(costs.ends) - 1),
        "validation_seconds": validation_seconds,
        "checkpoint_seconds": checkpoint_seconds,
        "memory_gb": measured[-1].memory_gb,
        "may_use_graphs": device.type == "cuda" and parts.model.cuda_graphs,
        "memory_of": "GPU" if device.type == "cuda" else "process",
        **_largest(parts, measured, device, num_parts),
        **time_left(parts, facts, done, speed, validation_seconds, checkpoint_seconds),
    }


def _small(parts: Parts, module: LanguageModel, device: torch.device, size: int) -> MicroBatch:
    """Make two steps of one micro-batch of a size; the second has the optimizer's state in memory."""
    reset_peak(device)
    costs, trainer = _steps(parts, module, size, accumulate=1, num_steps=2)
    found = _micro_batch(size, costs, peak_gb(device))
    for optimizer in trainer.optimizers:
        optimizer.state.clear()  # the module refers to the trainer until its next training
    return found


def _micro_batch(size: int, costs: StepCosts, memory_gb: float) -> MicroBatch:
    return MicroBatch(size, 1, costs.tokens_per_second, memory_gb, FITS)


def _steps(
    parts: Parts, module: LanguageModel, size: int, accumulate: int, num_steps: int = _NUM_STEPS
) -> tuple[StepCosts, Trainer]:
    """Make optimizer steps of the training. Raises: UserError if one is not finite."""
    divided = replace(parts, data=replace(parts.data, batch_size=size))
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "limit_train_batches": 1.0}
    costs = StepCosts(stops_if_split=False)
    callbacks = [SignalsEndAtOnce(), costs]
    if num_steps == _NUM_STEPS:
        callbacks.append(Progress(LatestMetrics()))
    else:
        options["enable_progress_bar"] = False
    try:
        trainer = train_briefly(divided, module, callbacks, num_steps, options)
    except NonFiniteStepError as error:
        fix = "a smaller optimizer.lr, or trainer.precision=32-true"
        raise UserError(f"the training would fail in {error}", fix=fix) from error
    return costs, trainer


def _validation_seconds(parts: Parts, module: LanguageModel) -> float:
    """Return how long one validation takes, by its first batches."""
    splits = parts.corpus.validations
    limit = parts.config["trainer"]["limit_val_batches"]
    if not splits or not limit:
        return 0.0
    times = BatchTimes()
    options = {"limit_val_batches": _VALIDATION_BATCHES, "enable_progress_bar": False}
    trainer = brief_trainer(parts, [SignalsEndAtOnce(), times], 1, options)
    trainer.validate(module, parts.datamodule(), verbose=False)
    total = 0.0
    for number, split in enumerate(splits):
        num_batches = -(-len(parts.corpus.examples[split]) // parts.data.batch_size)
        seconds = times.seconds.get(number, [0.0])
        # The first one is slow, since memory is allocated; it counts where there is no other.
        later = seconds[1:] or seconds
        total += limited(num_batches, limit) * sum(later) / len(later)
    return total


class _Nowhere:
    """A file that counts the bytes written to it."""

    num_bytes = 0

    def write(self, content: Any) -> int:
        """Count."""
        size = len(content)
        self.num_bytes += size
        return size

    def flush(self) -> None:
        """Do nothing: nothing is kept."""


def _checkpoint(module: LanguageModel, trainer: Trainer) -> tuple[float, int]:
    """Return the time that a checkpoint takes without the disk, and its bytes."""
    file: Any = _Nowhere()
    begin = time.perf_counter()
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    checkpoint["optimizer"] = trainer.optimizers[0].state_dict()
    torch.save(checkpoint, file)
    return time.perf_counter() - begin, file.num_bytes


def _largest(
    parts: Parts, measured: list[MicroBatch], device: torch.device, num_parts: int
) -> dict[str, Any]:
    """Return the largest micro-batch that divides a step's examples and fits, and how many would fit."""
    size = measured[-1].size
    num_examples = size * parts.config["trainer"]["accumulate_grad_batches"]
    found: dict[str, Any] = {"micro_batch": size, "split_into": num_parts, "step": num_examples}
    if num_parts > 1:
        largest = max(each for each in _divisors(num_examples) if each <= size // num_parts)
        return {**found, "largest": largest, "examples_that_fit": None}
    limit = _memory_limit_gb(measured[-1], device)
    if limit is None or not _grows(measured):
        return {**found, "largest": None, "examples_that_fit": None}
    divisors = _divisors(num_examples)
    fitting = [each for each in divisors if each <= size or needed_gb(measured, each) <= limit]
    per_example = needed_gb(measured, size + 1) - (measured[-1].memory_gb or 0.0)
    spare = limit - (measured[-1].memory_gb or 0.0)
    return {
        **found,
        "largest": max(fitting),
        "examples_that_fit": size + max(0, round(spare / per_example)),
    }


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _grows(measured: Iterable[MicroBatch]) -> bool:
    """Return whether a larger micro-batch took more memory, by more than chance."""
    sizes = [each.memory_gb or 0.0 for each in measured]
    return len(sizes) > 1 and sizes[-1] > 1.01 * sizes[0]


def _memory_limit_gb(measured: MicroBatch, device: torch.device) -> float | None:
    """Return how much memory the training can have, in gigabytes; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return (free + torch.cuda.memory_reserved(device)) / 1e9
    free = free_gb()
    return None if free is None else free + (measured.memory_gb or 0.0)
