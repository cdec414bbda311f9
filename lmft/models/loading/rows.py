"""Fit the rows of a loaded model to a vocabulary: of its embedding, its output projection and bias."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Rows:
    """The sources of the rows of a vocabulary's tokens."""

    size: int
    """Number of rows that the vocabulary needs."""
    new: Mapping[int, Sequence[int]]
    """{id of a new token: old ids, the mean of whose rows its row starts as}; without old ids it starts
    as `resize_token_embeddings` of transformers starts it."""
    moved: Mapping[int, int] | None = None
    """{id: old id} of the tokens that keep their rows; None: every old row stays where it is."""

    def with_new(self, ids: Sequence[int]) -> "Rows":
        """Return the rows with further new tokens, which start as transformers starts them."""
        new: dict[int, Sequence[int]] = {**self.new, **dict.fromkeys(ids, ())}
        return replace(self, size=max([self.size, *(token_id + 1 for token_id in ids)]), new=new)

    def new_id(self, old_id: int | None) -> int | None:
        """Return the id that a token has now; None if it is gone."""
        if self.moved is None or old_id is None:
            return old_id
        return next((new for new, old in self.moved.items() if old == old_id), None)


def fit_rows(model: PreTrainedModel, rows: Rows) -> None:
    """Give the model the rows of a vocabulary, in place.

    Args:
        model: a loaded model, or one without weights.
        rows: where its rows come from.
    """
    embedding: Any = model.get_input_embeddings()
    old_size = embedding.num_embeddings
    new_size = rows.size if rows.moved is not None else max(rows.size, old_size)
    has_weights = not embedding.weight.is_meta
    before = {name: weight.clone() for name, weight in _weights_by_token(model).items()}
    if new_size != old_size:
        model.resize_token_embeddings(new_size, mean_resizing=has_weights)
    if has_weights:
        for name, weight in _weights_by_token(model).items():
            _write(weight, before[name], rows)
    if rows.moved is not None:
        _move_ids(model, rows)


def _weights_by_token(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights that have a row for each token, detached: [V, …]."""
    embedding: Any = model.get_input_embeddings()
    weights = {"embedding": embedding.weight}
    head: Any = model.get_output_embeddings()
    if head is not None:
        weights["head"] = head.weight
        if getattr(head, "bias", None) is not None:
            weights["head bias"] = head.bias
    # BART has its bias as a buffer [1, V] beside the head.
    bias: Any = getattr(model, "final_logits_bias", None)
    if bias is not None:
        weights["final bias"] = bias[0]
    return {name: weight.detach() for name, weight in weights.items()}


def _write(weight: Tensor, before: Tensor, rows: Rows) -> None:
    """Write a weight's rows, given those it had before."""
    if rows.moved is not None:
        weight.copy_(before.mean(0).expand_as(weight))  # of ids that the vocabulary leaves out
        weight[list(rows.moved.keys())] = before[list(rows.moved.values())]
    for new_id, pieces in rows.new.items():
        if pieces:
            weight[new_id] = before[list(pieces)].mean(0)


def _move_ids(model: PreTrainedModel, rows: Rows) -> None:
    """Replace the ids of tokens in the model's configs by their new ones."""
    configs: list[Any] = [model.config, model.config.get_text_config()]
    if model.can_generate():
        configs.append(model.generation_config)
    for config in {id(config): config for config in configs}.values():
        for name, value in list(vars(config).items()):
            if not name.endswith("_token_id"):
                continue
            if isinstance(value, int):
                setattr(config, name, rows.new_id(value))
            elif isinstance(value, list):
                moved = [rows.new_id(old_id) for old_id in value]
                setattr(config, name, [new_id for new_id in moved if new_id is not None])
    embedding: Any = model.get_input_embeddings()
    embedding.padding_idx = rows.new_id(embedding.padding_idx)


@dataclass(frozen=True)
class TrainedRows:
    """The rows of a trained weight that belong to new tokens."""

    weight: nn.Parameter
    rows: Tensor | None
    """Numbers of these rows [N] int64; None: all of the weight."""


def new_rows(model: PreTrainedModel, ids: Sequence[int]) -> list[TrainedRows]:
    """Return the trained rows of new tokens in the model's embedding, output projection and bias.

    Args:
        model: the model, with adapters or without.
        ids: ids of the new tokens.
    """
    found: dict[int, TrainedRows] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if module is None:
            continue
        # peft's layer for trained rows holds them alone; its copies of modules hold whole weights.
        weights = [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
        for name, weight in weights:
            rows = None if "trainable_tokens" in name else torch.tensor(sorted(ids))
            found[id(weight)] = TrainedRows(weight, rows)
    return list(found.values())
