"""Resuming: the next batch and the weights after it are those of a training that was not interrupted."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from lightning import Callback
from torch import Tensor

from lmft.data.batch import Batch
from lmft.modules.base import LanguageModel
from lmft.training.callbacks.checkpoint import Checkpoints
from lmft.verification.check import Check, holds, within
from lmft.verification.steps import trainer_for
from lmft.verification.subject import Subject

_SAVED_AFTER = 2  # optimizer steps
_NUM_STEPS = 3
_ACCUMULATE = 2


class Seen(NamedTuple):
    """A micro-batch, and how many optimizer steps came before its own."""

    step: int
    batch: Batch


def resuming(subject: Subject) -> Iterator[Check]:
    """Train three steps, and the third once more from a checkpoint after the second."""
    with TemporaryDirectory(prefix="lmft-verify-") as folder:
        whole, module = _train(subject, Path(folder), None)
        weights = _weights(module)
        saved = Path(folder) / f"step={_SAVED_AFTER}.ckpt"
        resumed, module = _train(subject, Path(folder) / "resumed", saved)
    expected = [seen for seen in whole if seen.step >= _SAVED_AFTER]
    is_same = bool(resumed) and _told(resumed) == _told(expected)
    name = "next batch after resuming"
    if is_same:
        num_targets = sum(seen.batch.num_targets for seen in resumed)
        figure = f"the same {num_targets} targets in step {_SAVED_AFTER + 1} as without interruption"
    elif resumed and resumed[0].step == 0:
        figure = "the position is lost"
    else:
        figure = f"step {_SAVED_AFTER + 1} has other examples than without interruption"
    yield holds(name, is_same, figure)
    yield _compared(weights, _weights(module), subject)


def _train(subject: Subject, folder: Path, checkpoint: Path | None) -> tuple[list[Seen], LanguageModel]:
    """Return the micro-batches of a training, perhaps from a checkpoint on, and its module."""
    folder.mkdir(exist_ok=True)
    seen: list[Seen] = []
    parts = subject.parts_of({"train": subject.step}, batch_size=1)
    module = subject.new_module()
    options = {
        "accumulate_grad_batches": _ACCUMULATE,
        "enable_checkpointing": True,
        "precision": "32-true",
    }
    checkpoints = Checkpoints(folder, _SAVED_AFTER, -1)
    callbacks = [checkpoints, _Watch(seen, checkpoints)]
    trainer = trainer_for(parts, callbacks, _NUM_STEPS, folder, **options)
    trainer.fit(module, parts.datamodule(), ckpt_path=checkpoint, weights_only=True)
    return seen, module


class _Watch(Callback):
    """Keeps the micro-batches that are trained on, and has no checkpoint but the first one written."""

    def __init__(self, seen: list[Seen], checkpoints: Checkpoints):
        self.seen = seen
        self.checkpoints = checkpoints

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.seen.append(Seen(trainer.global_step, batch))
        if trainer.global_step == _SAVED_AFTER:
            self.checkpoints.close()


def _told(micro_batches: list[Seen]) -> list[tuple[int, list[int], list[int]]]:
    return [
        (seen.step, seen.batch.inputs["input_ids"].flatten().tolist(), seen.batch.targets.tolist())
        for seen in micro_batches
    ]


def _weights(module: LanguageModel) -> dict[str, Tensor]:
    return {
        name: weight.detach().float().cpu().clone()
        for name, weight in module.model.named_parameters()
        if weight.requires_grad
    }


def _compared(expected: dict[str, Tensor], found: dict[str, Tensor], subject: Subject) -> Check:
    """Return whether the weights after the step are the same: to the bit on a CPU."""
    name = "weights after resuming"
    differences = [float((found[each] - weight).abs().max()) for each, weight in expected.items()]
    difference = max(differences)
    num_different = sum(each > 0 for each in differences)
    figure = f"equal after step {_NUM_STEPS}, all {len(expected)} tensors"
    if num_different:
        figure = f"{num_different} of {len(expected)} tensors differ, by {difference:.1e} at most"
    if subject.device.type == "cpu":
        return holds(name, difference == 0.0, figure)
    largest = max(float(weight.abs().max()) for weight in expected.values())
    tolerance = 1000 * torch.finfo(torch.float32).eps * largest
    origin = "1000 roundings of the largest weight; a GPU adds in any order"
    return within(name, difference, tolerance, figure, origin)
