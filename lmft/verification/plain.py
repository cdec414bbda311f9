"""Compute the expected loss with plain transformers: one text at a time, without lmft's head."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmft.data.batch import Batch
from lmft.objectives.base import IGNORED

Gradients = dict[str, Tensor]
"""The gradient of each weight, by name."""


@dataclass(frozen=True)
class Alone:
    """A text by itself: inputs of the model, and at each position the token that is predicted there."""

    inputs: dict[str, Tensor]
    labels: Tensor  # [1, T] −100 where nothing is predicted

    @property
    def num_targets(self) -> int:
        """Positions that predict something."""
        return int((self.labels != IGNORED).sum())


def alone(batch: Batch) -> list[Alone]:
    """Return the texts of a batch of one row: its documents if they are kept apart, else the row."""
    inputs = dict(batch.inputs)
    documents = inputs.pop("document_ids", None)
    width = num_predictions(inputs)
    labels = torch.full((width,), IGNORED)
    is_target = batch.targets != IGNORED
    labels[batch.target_index[is_target]] = batch.targets[is_target]
    if documents is None:
        return [Alone(inputs, labels[None])]
    texts = []
    for number in documents[0].unique_consecutive().tolist():
        columns = documents[0] == number
        if number >= 0:
            texts.append(Alone({"input_ids": inputs["input_ids"][:, columns]}, labels[None, columns]))
    return texts


def num_predictions(inputs: Mapping[str, Any]) -> int:
    """Return how many positions of the model's output there are: T, or P of an XLNet's queries."""
    if "target_mapping" in inputs:
        return inputs["target_mapping"].shape[1]
    return inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]


def on(device: torch.device, text: Alone) -> Alone:
    """Return a text on a device."""
    inputs = {name: value.to(device) for name, value in text.inputs.items()}
    return Alone(inputs, text.labels.to(device))


def own_loss(model: PreTrainedModel, text: Alone, is_causal: bool) -> Tensor:
    """Return the sum of −log p by the loss that the model itself computes from labels.

    is_causal: whether the model shifts the labels: it takes the label of the next position.
    """
    labels = text.labels
    if is_causal:
        labels = labels.roll(1, dims=1)
        assert labels[0, 0] == IGNORED  # the last position predicts nothing
    return model(**text.inputs, labels=labels).loss * text.num_targets


@torch.no_grad()
def each_nats(model: Any, text: Alone) -> Tensor:
    """Return −log p of each target of a text, in order. [K]"""
    logits = model(**text.inputs).logits[0]
    is_target = text.labels[0] != IGNORED
    wanted = text.labels[0][is_target]
    scores = logits[is_target].log_softmax(-1)
    return -scores.gather(1, wanted[:, None])[:, 0]


def gradient(model: PreTrainedModel, texts: list[Alone], is_causal: bool) -> Gradients:
    """Return the gradient of the mean over all targets, computed one text after the other."""
    model.zero_grad()
    num_targets = sum(text.num_targets for text in texts)
    for text in texts:
        if text.num_targets:
            (own_loss(model, text, is_causal) / num_targets).backward()
    found = {
        name: weight.grad.detach().cpu()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }
    model.zero_grad()
    return found


@contextmanager
def rounded_otherwise(model: PreTrainedModel) -> Iterator[None]:
    """Move each weight by one unit in its last place, up or down; restore the weights afterwards.

    What that changes is the size of the model's rounding errors: of those of each product, too.
    """
    weights = [*model.parameters()]
    before = [weight.detach().clone() for weight in weights]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights:
            up = torch.randint(0, 2, weight.shape, generator=generator, dtype=torch.bool)
            sign = torch.where(up, 1.0, -1.0).to(weight.device, weight.dtype)
            weight.mul_(1 + sign * torch.finfo(weight.dtype).eps)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
