"""Batch: one micro-batch, as the DataLoaders return it and the LightningModules take it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class Batch:
    """The inputs of the model, and the targets that it has to predict.

    The letters of shapes are those of `lmft.objectives.base`.

    >>> batch = parts.datamodule().batch([0, 1, 2])
    >>> batch.inputs["input_ids"].shape[0], batch.target_index.shape == batch.targets.shape
    (3, True)
    """

    inputs: dict[str, Tensor]
    """Arguments of the model: `input_ids` [B, T], and others that depend on the objective."""
    target_index: Tensor
    """[K] flat positions (row * T + column) of the hidden states that predict."""
    targets: Tensor
    """[K] the token that each of them has to predict; −100 in the padding of K."""
    num_tokens: int
    """Tokens of the examples, without padding."""
    num_padding: int
    """Padded positions."""
    num_targets: int
    """Targets that are not padding."""
    document_starts: Tensor | None = None
    """[N + 1] int32: where documents begin in the rows laid end to end, if they are kept apart."""
    target_documents: np.ndarray | None = None
    """[K] the document of each target, an index among the split's documents; −1 in the padding of K.

    None unless it was asked for, and can be told.
    """

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory, from which GPUs copy faster; DataLoader calls it."""
        return self.changed(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with its tensors on a device; Lightning calls it, as it would for a tensor.

        Lightning would copy a dataclass deeply before it moves each of its fields.
        """
        device = torch.device(device)
        if all(tensor.device == device for tensor in self.tensors().values()):
            return self
        need_not_wait = device.type == "cuda"
        return self.changed(lambda tensor: tensor.to(device, non_blocking=need_not_wait))

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with each of its tensors changed."""
        inputs = {name: change(tensor) for name, tensor in self.inputs.items()}
        others = {name: change(tensor) for name, tensor in self.tensors_besides_inputs().items()}
        return replace(self, inputs=inputs, **others)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors, by name."""
        return {**self.inputs, **self.tensors_besides_inputs()}

    def tensors_besides_inputs(self) -> dict[str, Tensor]:
        """Return the attributes that are tensors, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}
