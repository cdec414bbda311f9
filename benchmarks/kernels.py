"""Small computations timed in turns in one process: what a call takes, and the memory that it adds."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.ceiling import synchronise
from benchmarks.clock import device

Table = dict[str, dict[str, float]]


def measured(ways: dict[str, Callable[[], object]], num_calls: int) -> Table:
    """Return median milliseconds of each way, and on a GPU its peak memory; one that fails is told."""
    found: Table = {}
    left: dict[str, Callable[[], object]] = {}
    for name, function in ways.items():
        try:
            function()
            found[name] = {"GB": peak_gb(function)} if torch.cuda.is_available() else {}
            left[name] = function
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    taken: dict[str, list[float]] = {name: [] for name in left}
    for _ in range(num_calls):
        for name, function in left.items():
            taken[name].append(milliseconds(function))
    for name, values in taken.items():
        found[name]["ms"] = statistics.median(values)
    return found


def milliseconds(function: Callable[[], object]) -> float:
    """Return what a call takes."""
    synchronise()
    start = time.perf_counter()
    function()
    synchronise()
    return 1e3 * (time.perf_counter() - start)


def peak_gb(function: Callable[[], object]) -> float:
    """Return the GPU memory that a call adds at most."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def error_of(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the relative distance of two tensors."""
    return float((found.double() - truth.double()).norm() / truth.double().norm())


def random(*shape: int, grad: bool = False) -> Any:
    """Return random bfloat16 numbers on the device."""
    return torch.randn(*shape, device=device(), dtype=torch.bfloat16, requires_grad=grad)
