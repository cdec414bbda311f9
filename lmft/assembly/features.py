"""Features of texts: a model's hidden states, pooled over the tokens of each text."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmft.errors import UserError
from lmft.models.loading.positions import max_positions
from lmft.modules.base import LanguageModel

_LONGEST = 512  # tokens read of a text if the model takes more


def text_features(
    module: LanguageModel,
    texts: Sequence[str],
    layer: int,
    pooling: str,
    window: int | None,
    batch_tokens: int,
    advance: Callable[[int], None],
) -> tuple[np.ndarray, int]:
    """Return the features of texts [N, D], and how many texts were cut.

    Args:
        module: a model in evaluation mode; of a sequence-to-sequence model its encoder is used.
        texts: N texts.
        layer: hidden states after this layer; 0: the embeddings; −1: the last layer.
        pooling: mean | first | last: of which tokens, separators included.
        window: tokens read of a text; None: 512, or all of the model's positions if they are fewer.
        batch_tokens: tokens, padding included, read at a time.
        advance: called with the number of texts that are done.

    Raises: UserError if the model has no such layer.
    """
    positions = max_positions(module.model.config)
    window = min(window or _LONGEST, positions or _LONGEST)
    tokenizer = module.tokenizer
    encoded = tokenizer(list(texts), truncation=True, max_length=window)["input_ids"]
    whole = tokenizer(list(texts), truncation=True, max_length=window + 1)["input_ids"]
    num_cut = sum(len(cut) < len(all_of) for cut, all_of in zip(encoded, whole, strict=True))
    order = np.argsort([len(ids) for ids in encoded], kind="stable")
    features: list[np.ndarray] = [np.zeros(0)] * len(encoded)
    for numbers in _batches(order, [len(ids) for ids in encoded], batch_tokens):
        states, mask = _hidden_states(module, [encoded[i] for i in numbers], layer)
        for number, row in zip(numbers, _pooled(states, mask, pooling).cpu().numpy(), strict=True):
            features[number] = row
        advance(len(numbers))
    return np.stack(features), num_cut


def _batches(order: np.ndarray, lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Split texts, sorted by length, into batches of at most `batch_tokens` padded tokens."""
    batches: list[list[int]] = [[]]
    for number in order.tolist():
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > batch_tokens:
            batches.append([])
        batches[-1].append(number)
    return batches


@torch.inference_mode()
def _hidden_states(
    module: LanguageModel, rows: Sequence[Sequence[int]], layer: int
) -> tuple[Tensor, Tensor]:
    """Return the hidden states of rows of tokens [B, T, D], and which tokens are no padding [B, T]."""
    width = max(1, max(map(len, rows)))
    pad_id: Any = module.tokenizer.pad_token_id or 0
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[number, : max(1, len(row))] = 1
    model: Any = module.model
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    mask = mask.to(module.device)
    found = body(input_ids=ids.to(module.device), attention_mask=mask, output_hidden_states=True)
    states = found.hidden_states
    if not -len(states) <= layer < len(states):
        what = f"the model has {len(states) - 1} layers"
        raise UserError(what, f"layer={layer}", f"layer=0 (embeddings) to {len(states) - 1}, or -1")
    return states[layer].float(), mask


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Return one vector a row [B, D] of hidden states [B, T, D]."""
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(states)), mask.sum(1) - 1]
    weights = mask[..., None].float()
    return (states * weights).sum(1) / weights.sum(1)
