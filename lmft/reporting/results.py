"""What metrics.json holds."""

import platform
import resource
import sys
from typing import Any

import lightning
import torch
import transformers
from lightning import Trainer

import lmft

SCORES = ("loss", "perplexity", "accuracy", "bits_per_byte", "targets")


def results(
    trainer: Trainer, passes: list[dict[str, Any]], totals: dict[str, Any], skipped: int, ledger: dict[str, Any]
) -> dict[str, Any]:
    """What metrics.json holds: loss in nats per target, bits per byte where it has a meaning, seconds of training.

    passes: the validations in order, each with its "step"; totals: tokens, targets, padding and seconds of training;
    skipped: optimizer steps that were left out, as they were not finite.
    """
    before, after, best = None, None, None
    if passes:
        before = passes[0] if passes[0]["step"] == 0 else None
        after, best = passes[-1], min(passes, key=lambda each: each["loss"])
    return {
        "status": "complete",
        "steps": trainer.global_step,
        "epochs": trainer.fit_loop.epoch_loop.batch_progress.total.ready / trainer.num_training_batches,
        "before": _scores(before),
        "after": _scores(after),
        "best": _scores(best),
        "train": {
            **totals,
            "tokens_per_second": totals["tokens"] / totals["seconds"] if totals["seconds"] else None,
            "peak_memory_gb": peak_memory_gb(),
            "steps_skipped": skipped,
        },
        "data": ledger,
        "environment": environment(trainer),
    }


def _scores(validation: dict[str, Any] | None) -> dict[str, Any] | None:
    return validation and {name: validation[name] for name in SCORES}


def peak_memory_gb() -> float:
    """Most memory held so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 1e6 if sys.platform != "darwin" else kilobytes / 1e9  # macOS counts in bytes


def environment(trainer: Trainer) -> dict[str, str]:
    """Versions and device."""
    device = trainer.strategy.root_device
    return {
        "lmft": lmft.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "precision": str(trainer.precision),
        "world_size": str(trainer.world_size),
    }
