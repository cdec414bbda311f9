"""How many bytes a training takes: the optimizer's state, a checkpoint, the exported model."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lmft.preflight.finding import Finding
from lmft.training.optimizer import MakeOptimizer

# Shapes of the matrices by which an optimizer's state is measured: from the number of elements and from
# that of rows and columns, both of which differ between them. 8-bit optimizers keep small weights in
# 32 bits, so these are not small.
_SHAPES = ((64, 96), (128, 192))


def state_bytes(make: MakeOptimizer, groups: Sequence[Mapping[str, Any]], device: torch.device) -> int:
    """Return the bytes of an optimizer's state, by steps of it on small weights of the same kinds.

    The state of a matrix has a part for each element, a part for each row and column (Adafactor), or
    both; that of a vector has a part for each element.

    Args:
        make: makes the optimizer from groups of weights.
        groups: of the model's weights, as `parameter_groups` returns them.
        device: where the weights are.
    """
    total = 0.0
    for group in groups:
        options = {name: value for name, value in group.items() if name != "params"}
        matrices = [weight for weight in group["params"] if weight.ndim > 1]
        vectors = [weight for weight in group["params"] if weight.ndim < 2]
        if matrices:
            each, by_side = _of_matrices(make, options, device)
            total += each * sum(weight.numel() for weight in matrices)
            total += by_side * sum(sum(weight.shape) for weight in matrices)
        if vectors:
            num_elements = math.prod(_SHAPES[0])
            own = _measured(make, options, [torch.zeros(num_elements, device=device)])[0]
            total += own / num_elements * sum(weight.numel() for weight in vectors)
    return round(total)


def _of_matrices(
    make: MakeOptimizer, options: dict[str, Any], device: torch.device
) -> tuple[float, float]:
    """Return the bytes of the state for each element, and for each row and column."""
    small, large = _SHAPES
    of_small, of_large = _measured(make, options, [torch.zeros(s, device=device) for s in _SHAPES])
    # of_small = each × elements + by_side × sides, and the same of the large one
    factor = sum(large) / sum(small)
    each = (of_large - factor * of_small) / (math.prod(large) - factor * math.prod(small))
    by_side = (of_small - each * math.prod(small)) / sum(small)
    return max(each, 0.0), max(by_side, 0.0)


def _measured(make: MakeOptimizer, options: dict[str, Any], tensors: list[Tensor]) -> list[int]:
    """Return the bytes of the optimizer's state of each tensor, after one step."""
    weights = [nn.Parameter(tensor) for tensor in tensors]
    groups: list[dict[str, Any]] = [{**options, "params": weights}]
    optimizer = make(groups)
    for weight in weights:
        weight.grad = torch.full_like(weight, 1e-3)
    optimizer.step(lambda: 0.0)  # LBFGS needs a function
    return [bytes_of_state(optimizer, weight) for weight in weights]


def bytes_of_state(optimizer: Optimizer, weight: nn.Parameter) -> int:
    """Return the bytes of an optimizer's state of one weight, single numbers left out."""
    tensors = [value for value in optimizer.state[weight].values() if isinstance(value, Tensor)]
    return sum(tensor.nbytes for tensor in tensors if tensor.numel() > 1)


def checkpoint_bytes(module: nn.Module, state: int, num_averages: int = 0) -> int:
    """Return the bytes of a checkpoint: trained weights, buffers, the optimizer's state, averages.

    Args:
        module: what is trained.
        state: bytes of the optimizer's state.
        num_averages: how many averages of the trained weights callbacks keep.
    """
    trained = sum(weight.nbytes for weight in module.parameters() if weight.requires_grad)
    return trained * (1 + num_averages) + sum(each.nbytes for each in module.buffers()) + state


def disk_facts(
    folder: Path,
    checkpoint: int,
    model: int,
    options: Mapping[str, Any],
    num_checkpoints: int | None,
    weights: int,
) -> dict[str, Any]:
    """Return what a run's folder will need of the disk, at most at a time, and what is free.

    Args:
        folder: the run's; it need not exist.
        checkpoint: bytes of one.
        model: bytes of model/.
        options: the config's `checkpoint`.
        num_checkpoints: how many the training saves; None: unknown.
        weights: bytes of the trained weights; with keep_last=0 the best ones are kept until the export.
    """
    keep_last = options["keep_last"]
    kept = None if keep_last == -1 else keep_last + 2  # the best, and one that is being written
    if keep_last == 0:
        kept = 0
    elif kept is None or (num_checkpoints is not None and num_checkpoints < kept):
        kept = num_checkpoints
    needed = checkpoint * (kept or 0)
    if keep_last == 0:
        needed = weights
    if options["max_disk_gb"] is not None:  # the newest and the best stay, and one is being written
        needed = min(needed, max(int(options["max_disk_gb"] * 1e9), 2 * checkpoint) + checkpoint)
    return {
        "folder": str(folder),
        "checkpoint_bytes": checkpoint,
        "model_bytes": model,
        "kept_checkpoints": kept,
        "needed_bytes": needed + model,
        "free_bytes": _free(folder),
    }


def _free(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be, with what it takes already."""
    existing = folder
    while not existing.is_dir() and existing != existing.parent:
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if existing != folder:
        return free
    return free + _taken(folder)  # a run that resumes replaces its checkpoints and its model


def _taken(folder: Path) -> int:
    """Return the bytes of a folder's files, of which other processes may delete some meanwhile."""
    sizes: dict[int, int] = {}  # by inode, as checkpoints have several names
    for parent, _, names in os.walk(folder):  # which passes over folders that are gone
        for name in names:
            with suppress(FileNotFoundError):
                found = Path(parent, name).stat()
                sizes[found.st_ino] = found.st_size
    return sum(sizes.values())


def short_of_disk(disk: Mapping[str, Any]) -> Finding | None:
    """Return a finding if the run's folder will need more than is free."""
    if disk["needed_bytes"] <= disk["free_bytes"]:
        return None
    needed = disk["needed_bytes"] / 1e9
    free = disk["free_bytes"] / 1e9
    checkpoint = disk["checkpoint_bytes"] / 1e9
    text = (
        f"checkpoints of {checkpoint:.3g} GB and model/ will take up to {needed:.3g} GB, "
        f"and {free:.3g} GB of the disk are free"
    )
    return Finding("disk", text, "checkpoint.keep_last=1, or run.dir=FOLDER on another disk")
