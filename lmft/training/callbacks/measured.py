"""Whether the weights at the end are those that the last validation measured: callbacks may average them
after it.
"""

from itertools import chain
from typing import Any

import torch
import xxhash
from lightning import Callback, LightningModule, Trainer


class MeasuredWeights(Callback):
    """Keeps a checksum of the weights that the last validation has measured."""

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
        """Amid a validation: a callback may have put other weights in for it alone."""
        if batch_idx == 0:
            self.checksum = weights_checksum(pl_module)


def may_replace_weights(trainer: Any) -> bool:
    """Whether callbacks of the config are there, which may put other weights into the module, as averaging
    does.
    """
    return any(isinstance(each, MeasuredWeights) for each in trainer.callbacks)


def weights_changed_after_validation(trainer: Any) -> bool:
    """Whether the weights are others than the last validation measured. False without a `MeasuredWeights`, or
    before any validation.
    """
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    measured = next((each.checksum for each in callbacks if isinstance(each, MeasuredWeights)), None)
    return measured is not None and measured != weights_checksum(trainer.lightning_module)


def weights_checksum(module: LightningModule) -> str:
    """xxh3 of all parameters and buffers, whatever device they are on."""
    digest = xxhash.xxh3_64()
    for tensor in chain(module.parameters(), module.buffers()):
        content: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        digest.update(content)
    return digest.hexdigest()
