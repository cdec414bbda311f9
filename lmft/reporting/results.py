"""What metrics.json holds."""

import math
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
    trainer: Trainer,
    num_epochs: float,
    passes: list[dict[str, Any]],
    exported: dict[str, Any],
    totals: dict[str, Any],
    skipped: int,
    ledger: dict[str, Any],
) -> dict[str, Any]:
    """What metrics.json holds: loss in nats per target, bits per byte where it has a meaning, seconds of
    training.

    passes: the validations in order, each with its "step"; exported: {"step", "checkpoint": "best" | "last"},
    which weights model/ holds; totals: tokens, targets, padding and seconds of training; skipped: optimizer
    steps that were left out, as they were not finite.
    """
    before = passes[0] if passes and passes[0]["step"] == 0 else None
    trained = [each for each in passes if each["step"] > 0]
    after = trained[-1] if trained else None
    best = min(trained, key=_loss_or_infinity, default=None)
    of_exported = [each for each in trained if each["step"] == exported["step"]]
    # Callbacks may have changed the weights of the last step after its validation.
    if exported["checkpoint"] == "best":
        of_exported.sort(key=_loss_or_infinity, reverse=True)
    scores = _scores(of_exported[-1]) if of_exported else None
    return {
        "status": "complete",
        "steps": trainer.global_step,
        "epochs": num_epochs,
        "before": _scores(before),
        "after": _scores(after),
        "best": best and {"step": best["step"], **(_scores(best) or {})},
        "exported": {**exported, **(scores or dict.fromkeys(SCORES))},
        "train": {
            **totals,
            "tokens_per_second": totals["tokens"] / totals["seconds"] if totals["seconds"] else None,
            "peak_memory_gb": peak_memory_gb(),
            "steps_skipped": skipped,
        },
        "data": ledger,
        "environment": environment(trainer),
    }


def _loss_or_infinity(scores: dict[str, Any]) -> float:
    return math.inf if math.isnan(scores["loss"]) else scores["loss"]


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
