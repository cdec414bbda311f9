"""How the examples of an optimizer step are divided into micro-batches: candidates, memory, choice."""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_APART = 1.6  # least factor between two sizes that are tried
_AS_FAST = 0.97  # share of the best speed that counts as equal to it
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MicroBatch:
    """A size of the micro-batch, as it was measured."""

    size: int
    """Examples."""
    accumulate: int
    """Micro-batches of an optimizer step."""
    tokens_per_second: float | None
    """None if it was not timed."""
    memory_gb: float | None
    """The most memory that was held: of the GPU, else of the process."""
    outcome: str
    """fits, does not fit; or why it was not tried."""

    @property
    def overrides(self) -> str:
        """The arguments that choose it."""
        return f"data.batch_size={self.size} trainer.accumulate_grad_batches={self.accumulate}"


FITS = "fits"
DOES_NOT_FIT = "does not fit"


def candidates(num_examples: int, present: int) -> list[int]:
    """Return the sizes to try: divisors of a step's number of examples, not too close to each other.

    Args:
        num_examples: examples of an optimizer step.
        present: the size that the config has.
    """
    divisors = [size for size in range(1, num_examples + 1) if num_examples % size == 0]
    chosen: list[int] = []
    for size in divisors:
        is_apart = not chosen or size >= _APART * chosen[-1]
        if is_apart or size in (present, num_examples):
            chosen.append(size)
    return chosen


def choice(measured: Sequence[MicroBatch], has_own_memory: bool) -> tuple[MicroBatch | None, str]:
    """Return the size to train with, and the reason; None if none fits.

    Args:
        measured: the sizes, the smallest first.
        has_own_memory: whether the device has memory for nothing else, as a GPU has: then it is the
            largest size that fits. Otherwise it is the smallest of the fastest.
    """
    fitting = [each for each in measured if each.tokens_per_second is not None]
    if not fitting:
        return None, "no micro-batch fits into memory"
    fastest = max(each.tokens_per_second or 0 for each in fitting)
    fast = [each for each in fitting if (each.tokens_per_second or 0) >= _AS_FAST * fastest]
    if not has_own_memory:
        return fast[0], "the smallest of those that are fastest, within 3%"
    largest = fitting[-1]
    reason = "the largest that fits"
    if largest not in fast:
        reason += f"; {fast[0].size} is faster, and takes less memory: {fast[0].overrides}"
    return largest, reason


def reset_peak(device: torch.device) -> None:
    """Reset the peak of memory, where the system can do that (CUDA, Linux)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")


def peak_gb(device: torch.device) -> float:
    """Return the most memory held since `reset_peak`, in gigabytes: of the GPU, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if _STATUS.exists():
        return _kilobytes(_STATUS, "VmHWM:") / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes on macOS, else kilobytes


def free_gb() -> float | None:
    """Return how much memory this machine has left for the process, in gigabytes; None if unknown."""
    path = Path("/proc/meminfo")
    return _kilobytes(path, "MemAvailable:") / 1e6 if path.exists() else None


def needed_gb(measured: Sequence[MicroBatch], size: int) -> float:
    """Return the memory that a size will need, by the two largest that were measured."""
    known = [(each.size, each.memory_gb) for each in measured if each.memory_gb is not None]
    if len(known) < 2:
        return 0.0
    (small, least), (large, most) = known[-2:]
    return most + max(0.0, most - least) / (large - small) * (size - large)


def _kilobytes(path: Path, name: str) -> float:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return float(line.split()[1])
    return 0.0
