"""Decide before a training whether compiled code pays, by trying it on one batch."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from lmft.data.batch import Batch
from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.reporting.terminal import show
from lmft.training.compiling import Compiling, check_compiler, missing_compiler
from lmft.training.fully_sharded import FullySharded
from lmft.training.memory import is_out_of_memory

log = logging.getLogger(__name__)

_ROUNDS = 3
_LEAST_SECONDS = 60.0  # of a training that may gain more than compiling takes
_LEAST_GAIN = 0.03  # share of the time; less is not told from chance


def begin_compiling(module: Any, compiling: Compiling) -> None:
    """Decide before the first step whether the module is compiled, and for which batches.

    Args:
        module: the LightningModule; weights, gradients and torch's generators stay as they are.
        compiling: its compiled code.

    Raises: UserError if `model.compile=true` and there is no compiler.
    """
    trainer = module.trainer
    reason = None
    if compiling.mode == "auto":
        reason = missing_compiler(module.device)
    else:
        check_compiler(module.device)
    data = trainer.datamodule
    if isinstance(data, DataModule):
        data.pad_training_to(compiling.widths)
        compiling.usual = data.usual_batch()
    if compiling.mode == "auto":
        decision = _recorded(compiling, reason)
        if decision is None:
            decision, found = _try(module, compiling, reason)
            # All devices have to decide alike; the first one's figures count.
            decision = bool(trainer.strategy.broadcast(decision))
            if trainer.is_global_zero:
                show(f"model.compile=auto: {found}")
        compiling.is_on = decision
    if isinstance(data, DataModule) and not compiling.is_on:
        data.pad_training_to(None)


def _recorded(compiling: Compiling, reason: str | None) -> bool | None:
    """Return what was decided when the training began; None if it begins now."""
    decision = compiling.is_recorded
    if not decision or not reason:
        return decision
    log.warning("the training began with compiled code and continues without it: %s", reason)
    return False


def _try(module: Any, compiling: Compiling, reason: str | None) -> tuple[bool, str]:
    """Return whether compiled code pays, and what was found, in words."""
    if reason:
        return False, f"not compiled, because {reason}"
    if compiling.usual is None:
        return False, "not compiled: the batches are not lmft's, so nothing is known of their shapes"
    trainer = module.trainer
    if isinstance(trainer.strategy, FullySharded):
        return False, "not compiled: a trial would leave gradients in sharded weights"
    batch = trainer.strategy.batch_to_device(compiling.usual)
    try:
        with _unchanged(module):
            return _compare(module, batch)
    except (UserError, RuntimeError) as error:
        # Some of a model's code is compiled in its backward pass alone.
        if not isinstance(error, (UserError, TorchDynamoException)) and not is_out_of_memory(error):
            raise
        return False, f"not compiled, because {' '.join(str(error).split())[:300]}"


def _compare(module: Any, batch: Batch) -> tuple[bool, str]:
    """Return whether compiled code of a batch pays, and what was found. Raises what the batch raises."""
    trainer = module.trainer
    num_left = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
    plain = _seconds(module, batch, is_compiled=False)
    plain = min(plain, _seconds(module, batch, is_compiled=False))
    left = f"{num_left:,.0f} micro-batches of {1000 * plain:.0f} ms are left"
    if num_left * plain < _LEAST_SECONDS:
        return False, f"not compiled: {left}, too few to save the time that compiling takes"
    compile_seconds = _seconds(module, batch, is_compiled=True)
    times = {False: [], True: []}
    for _ in range(_ROUNDS):
        for is_compiled, seconds in times.items():
            seconds.append(_seconds(module, batch, is_compiled))
    eager = median(times[False])
    compiled = median(times[True])
    pays = compiled < (1 - _LEAST_GAIN) * eager
    found = (
        f"{1000 * eager:.0f} ms per micro-batch, {1000 * compiled:.0f} ms compiled (compiling took "
        f"{compile_seconds:.0f} s); {left}: {'compiled' if pays else 'not compiled'}"
    )
    return pays, found


def _seconds(module: Any, batch: Batch, is_compiled: bool) -> float:
    """Return the time of a batch's forward and backward pass, whose gradients are thrown away."""
    compiling = module.compiling
    compiling.is_on = is_compiled
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    _synchronize(module.device)
    began = time.perf_counter()
    with module.step.dropout(), module.trainer.precision_plugin.train_step_context():
        nats = module.step.compute_nats(batch)
        # Not `backward`: DDP would begin to exchange gradients.
        torch.autograd.grad(nats, weights, allow_unused=True)
    _synchronize(module.device)
    return time.perf_counter() - began


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _unchanged(module: Any) -> Iterator[None]:
    """Compute in training mode; keep modes and generators as they are."""
    modes = {part: part.training for part in module.modules()}
    devices = [module.device] if module.device.type == "cuda" else []  # not those of other processes
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            module.train()
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
