"""Memory that a training holds."""

import resource
from pathlib import Path

import torch

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
