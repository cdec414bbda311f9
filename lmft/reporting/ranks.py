"""Which of a training's processes this is."""

import os

# Environment variables of the rank, in the order in which Lightning reads them.
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def rank() -> int:
    """Return this process's number among those of a training."""
    for name in _RANKS:
        if name in os.environ:
            return int(os.environ[name])
    return 0


def is_first_process() -> bool:
    """Return whether this process shows what all of them do."""
    return rank() == 0
