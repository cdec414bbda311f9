"""Batches of `input_ids` and `labels`, as data collators of transformers make them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lmft.data.batch import Batch
from lmft.objectives.base import IGNORED


def batch_of_labels(
    inputs: Mapping[str, Tensor], labels: Tensor, predicted_from: Tensor | None = None
) -> Batch:
    """Return the Batch that predicts the labels.

    Args:
        inputs: arguments of the model, `input_ids` among them.
        labels: [N] token ids, in the order of `predicted_from`; −100 is no target.
        predicted_from: [N] flat positions (row * T + column) of the hidden states that predict them;
            None: each label is predicted at its own position.
    """
    if predicted_from is None:
        predicted_from = torch.arange(len(labels), device=labels.device)
    is_target = labels != IGNORED
    num_positions = inputs["input_ids"].numel()
    num_tokens = int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else num_positions
    return Batch(
        inputs=dict(inputs),
        target_index=predicted_from[is_target],
        targets=labels[is_target],
        num_tokens=num_tokens,
        num_padding=num_positions - num_tokens,
        num_targets=int(is_target.sum()),
    )
