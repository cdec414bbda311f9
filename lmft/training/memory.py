"""Memory that a training holds now, and errors of too little memory."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")
_PAGES = Path("/proc/self/statm")


def held_gb(device: torch.device) -> float | None:
    """Return the memory held now, in gigabytes: of the GPU by PyTorch, else of the process.

    None if the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9
    if not _PAGES.exists():
        return None
    return int(_PAGES.read_text().split()[1]) * resource.getpagesize() / 1e9


def none_if_out_of_memory(compute: Callable[[], T]) -> T | None:
    """Return what `compute` returns; None if memory was too small for it."""
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator of torch ran out of memory."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
