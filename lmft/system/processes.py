"""The processes of a training on several devices."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Environment variables of a process's rank, in the order in which Lightning reads them.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
# Variables by which processes find each other; Lightning sets them and leaves most of them set.
_RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def rank() -> int:
    """Return the rank of this process among those of its training; 0 without others."""
    for name in _RANKS:
        if name in os.environ:
            return int(os.environ[name])
    return 0


def sum_over_processes(numbers: Any) -> Any:
    """Add up a tensor over the processes of a training, in place, and return it.

    Lightning's `reduce` would make all processes wait for each other before.
    """
    import torch.distributed as group

    group.all_reduce(numbers)
    return numbers


@contextmanager
def processes_end() -> Iterator[None]:
    """Leave the block without a process group, and with the environment variables from before it.

    Otherwise the next training in this process would take itself for a process that another one has
    started, and wait for processes that have ended.
    """
    import torch.distributed as group

    before = {name: os.environ.get(name) for name in _RENDEZVOUS}
    had_group = group.is_available() and group.is_initialized()
    try:
        yield
    finally:
        if group.is_available() and group.is_initialized() and not had_group:
            group.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
