"""Record when the steps of a training end, and its peak memory."""

import resource
import statistics
import sys
import time
from itertools import pairwise
from typing import Any

import torch

# First steps of a training, which no figure counts. On a GPU lmft records graphs for each shape in them.
WARM_UP = 40 if torch.cuda.is_available() else 3


class Clock:
    """Notes when steps end, without waiting for the GPU."""

    def __init__(self) -> None:
        self.ends: list[Any] = []
        self.num_tokens: list[int] = []
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def step_ends(self, num_tokens: int) -> None:
        """Note the time, and how many tokens the step had, without padding."""
        self.num_tokens.append(num_tokens)
        if not torch.cuda.is_available():
            self.ends.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.ends.append(event)

    def figures(self) -> dict[str, float]:
        """Return the figures of the steps after the warm-up.

        step_s: median seconds of a step. tokens_per_s: their tokens over their seconds. peak_gb: of the
            GPU's
        allocated memory, or of this process's resident memory.
        """
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            seconds = [a.elapsed_time(b) / 1e3 for a, b in pairwise(self.ends[WARM_UP - 1 :])]
        else:
            seconds = [b - a for a, b in pairwise(self.ends[WARM_UP - 1 :])]
        tokens = sum(self.num_tokens[WARM_UP:])
        return {
            "step_s": statistics.median(seconds),
            "tokens_per_s": tokens / sum(seconds),
            "peak_gb": peak_memory_gb(),
        }


def peak_memory_gb() -> float:
    """Return the peak of the GPU's allocated memory, or of this process's resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e9


def device() -> str:
    """Return where trainings run."""
    return "cuda" if torch.cuda.is_available() else "cpu"
