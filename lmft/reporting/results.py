"""Compile the content of metrics.json."""

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
    spikes: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the content of metrics.json.

    Args:
        trainer: the Trainer at the end of training.
        num_epochs: epochs trained, with fractions.
        passes: the validations in order, each with its "step".
        exported: {"step", "checkpoint": "best" | "last", "dtype"} of the weights in model/, with their
            scores if they were measured apart from `passes`.
        totals: tokens, targets, padding and seconds of training.
        skipped: optimizer steps that were skipped because loss or gradient were not finite, or because
            they are left out after a spike of the loss.
        ledger: what happened to the text of each split.
        spikes: the spikes of the loss from which training went back.
    """
    tokens_per_second = None
    if totals["seconds"]:
        tokens_per_second = totals["tokens"] / totals["seconds"]
    return {
        "status": "complete",
        "steps": trainer.global_step,
        "epochs": num_epochs,
        **_before_after_and_best(passes),
        "exported": {**_exported_scores(_trained(passes), exported), **exported},
        "train": {
            **totals,
            "tokens_per_second": tokens_per_second,
            "peak_memory_gb": peak_memory_gb(),
            "steps_skipped": skipped,
            "spikes": spikes,
        },
        "data": ledger,
        "environment": environment(trainer),
    }


def _trained(passes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the validations after at least one optimizer step."""
    return [scores for scores in passes if scores["step"] > 0]


def _before_after_and_best(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the scores `before` the training, `after` it and the `best`; None if not measured."""
    before = None
    if passes and passes[0]["step"] == 0:
        before = scores_of(passes[0])
    trained = _trained(passes)
    if not trained:
        return {"before": before, "after": None, "best": None}
    best = min(trained, key=_loss_or_infinity)
    return {
        "before": before,
        "after": scores_of(trained[-1]),
        "best": {"step": best["step"], **scores_of(best)},
    }


def _exported_scores(trained: list[dict[str, Any]], exported: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of the exported weights; None for each if no validation measured them.

    A step may have several validations, because callbacks may change weights after the first one. The
    best weights are those of its lowest loss, the last weights those of its last validation.
    """
    passes = [scores for scores in trained if scores["step"] == exported["step"]]
    if not passes:
        return dict.fromkeys(SCORES)
    if exported["checkpoint"] == "best":
        passes.sort(key=_loss_or_infinity, reverse=True)
    return scores_of(passes[-1])


def _loss_or_infinity(scores: dict[str, Any]) -> float:
    return math.inf if math.isnan(scores["loss"]) else scores["loss"]


def scores_of(validation: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a validation; of a mixture also those of each source."""
    scores = {name: validation[name] for name in SCORES}
    if "by_source" in validation:
        scores["by_source"] = validation["by_source"]
    return scores


def peak_memory_gb() -> float:
    """Return the most memory held so far, in gigabytes: of the GPU if there is one, else of this
    process.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6  # bytes on macOS, else kilobytes


def environment(trainer: Trainer) -> dict[str, str]:
    """Return the versions of the libraries, the device, and the precision."""
    device = trainer.strategy.root_device
    device_name = f"{device.type} ({platform.machine()})"
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    return {
        "lmft": lmft.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "transformers": transformers.__version__,
        "device": device_name,
        "precision": str(trainer.precision),
        "world_size": str(trainer.world_size),
    }
