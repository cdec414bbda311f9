"""Arguments of a model's body that keep attention within rows, or within documents of packed rows."""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lmft.models import packed_attention


def is_packed(model: PreTrainedModel) -> bool:
    """Return whether the model attends without masks, by `use_packed_attention`."""
    return model.config._attn_implementation == packed_attention.NAME


def plain_inputs(model: PreTrainedModel, tokens: Tensor) -> dict[str, Any]:
    """Return inputs of the body for full rows of a causal model [B, T], which need no mask.

    transformers would look for documents in the model's own positions. That reads them from the GPU in
    each step, and makes a mask of [B, T, T] in compiled code, where they cannot be read.
    """
    if not is_packed(model):
        return {}
    columns = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)
    inputs = {"attention_mask": _placeholders(model, tokens.device), "lmft_rows": "plain"}
    return inputs | _position_inputs(model, columns)


def document_inputs(
    model: PreTrainedModel,
    document_ids: Tensor,
    causal: bool = False,
    starts: Tensor | None = None,
) -> dict[str, Any]:
    """Return inputs of the body that keep attention and positions within each token's document.

    Args:
        model: a model that `enable_document_masking` has prepared.
        document_ids: [B, T] number of each token's document, −1 for padding.
        causal: whether a token sees only the tokens before it.
        starts: [N + 1] where documents begin, as of `document_starts`; None: found from their numbers.
    """
    if not is_packed(model) or not packed_attention.takes_starts(document_ids.device, model.dtype):
        return mask_inputs(model, document_ids, causal)
    return {
        "attention_mask": _placeholders(model, document_ids.device),
        **packed_attention.packed_inputs(document_ids, starts),
        **_position_inputs(model, document_positions(document_ids)),
    }


def _placeholders(model: PreTrainedModel, device: torch.device) -> Any:
    """Return what stands for masks that are not needed: transformers makes none if it is given some."""
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
    kinds = _kinds_of_layers(model.config)
    return dict.fromkeys(kinds, mask) if len(kinds) > 1 else mask


def mask_inputs(model: PreTrainedModel, document_ids: Tensor, causal: bool) -> dict[str, Any]:
    """Return the inputs of `document_inputs` with masks."""
    same = document_ids[:, :, None] == document_ids[:, None, :]  # [B, T, T]
    positions = document_positions(document_ids)
    config = model.config
    if config.model_type == "deberta-v2":
        return {"attention_mask": same, "position_ids": positions}
    if causal:
        same = same.tril()
    inputs = {"attention_mask": _masks(model, same, positions, causal)}
    return inputs | _position_inputs(model, positions)


def _position_inputs(model: PreTrainedModel, positions: Tensor) -> dict[str, Tensor]:
    """Return the input that gives tokens these positions [B, T]; none if the model has no such input."""
    if not _takes_positions(type(model.base_model)):
        return {}
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    # RoBERTa's start after the padding id.
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        positions = positions + embeddings.padding_idx + 1
    return {"position_ids": positions}


@functools.cache
def _takes_positions(body: type[nn.Module]) -> bool:
    return "position_ids" in inspect.signature(body.forward).parameters


def _kinds_of_layers(config: PreTrainedConfig) -> set[str]:
    """Return the types of layers, each of which has a mask of its own."""
    return set(_layer_types(config, 1))


def _layer_types(config: PreTrainedConfig, num_layers: int) -> list[str]:
    default_type = "sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"
    return getattr(config, "layer_types", None) or [default_type] * num_layers


def num_sliding_layers(config: PreTrainedConfig, num_layers: int) -> int:
    """Return how many of the layers let a token see only those of a window around it."""
    if not getattr(config, "sliding_window", None):
        return 0
    return _layer_types(config, num_layers).count("sliding_attention")


def _masks(model: PreTrainedModel, same: Tensor, positions: Tensor, causal: bool) -> Any:
    """Return one mask [B, 1, T, T], or {layer type: mask} if the model has several types of layers.

    Args:
        model: the model.
        same: [B, T, T] bool, which tokens each token may see.
        positions: [B, T] positions inside the document.
        causal: whether a token sees only the tokens before it.
    """
    window = getattr(model.config, "sliding_window", None)
    layer_types = _kinds_of_layers(model.config)
    allowed = {"full_attention": same}
    if "sliding_attention" in layer_types and window:
        distance = (positions[:, :, None] - positions[:, None, :]).abs()
        is_near = distance < window if causal else distance <= window
        allowed["sliding_attention"] = same & is_near
    masks = {kind: _mask(model, mask) for kind, mask in allowed.items() if kind in layer_types}
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _mask(model: PreTrainedModel, allowed: Tensor) -> Tensor:
    """Return the mask [B, 1, T, T] of `allowed` [B, T, T]: bool for sdpa, else added to the scores."""
    allowed = allowed.unsqueeze(1)
    dtype = torch.float32
    if model.config._attn_implementation != "eager":
        if not allowed.is_cuda:
            return allowed
        # On CUDA, sdpa would turn a mask of bool into one of numbers again in each layer.
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else model.dtype
    return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def document_positions(document_ids: Tensor) -> Tensor:
    """Return each token's position in its document [B, T], from `document_ids` [B, T]."""
    columns = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return columns - torch.where(begins, columns, 0).cummax(dim=1).values
