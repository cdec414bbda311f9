"""Divide the GPUs and cores of this machine among processes that run at the same time."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What tells that there may be a GPU, so that torch need not be loaded where there is none.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def shares(num_processes: int, gpus: list[str], gpus_each: int) -> list[dict[str, str]]:
    """Return the environment variables of each process.

    Args:
        num_processes: how many run at the same time.
        gpus: names or numbers of the visible GPUs; with fewer than all processes need, some are shared.
        gpus_each: GPUs of each process.
    """
    groups = [gpus[i : i + gpus_each] for i in range(0, len(gpus) - gpus_each + 1, gpus_each)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, num_cores() // num_processes))
    environments = []
    for i in range(num_processes):
        environment = {"OMP_NUM_THREADS": threads}
        if groups:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(groups[i % len(groups)])
        environments.append(environment)
    return environments


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them; all of the machine if it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip()]
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return []
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def gpus_of_a_job(devices: Any) -> int:
    """Return how many GPUs a job with `trainer.devices` uses: as many as are listed, or their number."""
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return max(1, len(devices))
    return devices if isinstance(devices, int) and devices > 1 else 1
