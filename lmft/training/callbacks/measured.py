"""Detect weights that changed after the last validation, as averaging them at the end does; measure
them.
"""

from itertools import chain
from typing import Any

import torch
import xxhash
from lightning import Callback, LightningDataModule, LightningModule, Trainer

from lmft.models.sharding import free_gathered
from lmft.system import sharding


class MeasuredWeights(Callback):
    """Keeps a checksum of the weights of the last validation."""

    def __init__(self) -> None:
        self.checksum: str | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the checksum during the validation, because a callback may swap weights for it alone."""
        if batch_idx == 0:
            self.checksum = weights_checksum(pl_module)


def weights_changed_after_validation(trainer: Any) -> bool:
    """Return whether the weights differ from those of the last validation; False before the first."""
    for callback in trainer.callbacks:
        if isinstance(callback, MeasuredWeights) and callback.checksum is not None:
            has_changed = callback.checksum != weights_checksum(trainer.lightning_module)
            return sharding.anywhere(has_changed)
    return False


def measure_unrecorded(
    trainer: Any, module: Any, data: LightningDataModule, callbacks: list[Callback]
) -> dict[str, Any]:
    """Return the scores of a module's present weights, which no callback or logger gets to see.

    Args:
        trainer: the Trainer, after training.
        module: the LightningModule.
        data: its data.
        callbacks: the callbacks of this validation, such as its progress bar.
    """
    others = trainer.callbacks
    loggers = trainer.loggers
    trainer.callbacks = callbacks
    trainer.loggers = []
    try:
        trainer.validate(module, data, verbose=False)
    finally:
        trainer.callbacks = others
        trainer.loggers = loggers
    return module.latest_scores


def weights_checksum(module: LightningModule) -> str:
    """Return the xxh3 checksum of all parameters and buffers, on any device.

    Where devices share the weights, that of this process's parts.
    """
    for part in module.modules():
        free_gathered(part)
    digest = xxhash.xxh3_64()
    for tensor in chain(module.parameters(), module.buffers()):
        own = sharding.own_part(tensor.detach())
        content: Any = own.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
