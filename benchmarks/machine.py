"""The machine that a figure was measured on."""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "lightning", "transformers", "datasets", "tokenizers", "trl", "numpy")
BF16 = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16")


def facts() -> dict[str, Any]:
    """Return processor, cores, threads, GPU, versions, commit, and the machine's load."""
    import torch

    info = _cpu_info()
    flags = set(re.split(r"\s+", info.get("flags", info.get("Features", ""))))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": [flag for flag in BF16 if flag in flags],
        "gpu": gpus,
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": _commit(),
        "load": round(os.getloadavg()[0], 1),
    }


def name(facts: dict[str, Any]) -> str:
    """Return a file's name for a machine: its processor or GPU, and the number of cores or GPUs."""
    kind = (
        f"{len(facts['gpu'])}x {facts['gpu'][0]}"
        if facts["gpu"]
        else f"{facts['cores']}x {facts['cpu']}"
    )
    kind = f"{kind} {' '.join(facts['instructions'][:1])}" if not facts["gpu"] else kind
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")


def sentence(facts: dict[str, Any]) -> str:
    """Return the same in words, for the documentation."""
    what = f"{', '.join(facts['gpu'])}; " if facts["gpu"] else ""
    flags = f" ({', '.join(facts['instructions'][:2])})" if facts["instructions"] else ""
    versions = ", ".join(f"{package} {number}" for package, number in facts["versions"].items())
    return f"{what}{facts['cpu']}{flags}, {facts['cores']} cores, {facts['threads']} threads; {versions}"


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    words = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
        )
    except OSError:
        return None
    return done.stdout.strip() or None
