"""Which attention a model uses, and how it is kept inside one document of a block."""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmft.errors import UserError


def support_isolation(model: PreTrainedModel) -> None:
    """Makes the model ready for `isolated`; raises UserError where its attention takes no mask of a block's shape."""
    if model.config.model_type == "deberta-v2":
        # DeBERTa's encoder takes a [B, T, T] mask, but its embeddings want one of [B, T].
        embeddings_of(model).register_forward_pre_hook(_one_mask_a_token, with_kwargs=True)
    elif not hasattr(sys.modules[type(model).__module__], "create_bidirectional_mask"):
        raise UserError(
            f"{model.config.model_type} cannot keep attention inside a document", fix="data.isolate_documents=false"
        )


def _one_mask_a_token(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    mask = kwargs.get("mask")
    if mask is not None and mask.dim() == 3:
        kwargs["mask"] = mask.any(-1)
    return args, kwargs


def embeddings_of(model: PreTrainedModel) -> Any:
    """The module that turns ids and positions into the first hidden states."""
    return model.base_model.embeddings


def isolated(model: PreTrainedModel, document_ids: Tensor) -> dict[str, Any]:
    """Body inputs under which a token sees its own document only, with positions counted from the document's start.

    document_ids: [B, T] number of each token's document, −1 for padding.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]  # [B, T, T]
    positions = _positions(document_ids)
    config, embeddings = model.config, embeddings_of(model)
    if config.model_type == "deberta-v2":
        return {"attention_mask": same, "position_ids": positions}
    if config.model_type == "modernbert":
        near = (positions[:, :, None] - positions[:, None, :]).abs() <= config.sliding_window
        masks = {"full_attention": same, "sliding_attention": same & near}
        return {"attention_mask": {k: _mask(model, m) for k, m in masks.items()}, "position_ids": positions}
    if hasattr(embeddings, "create_position_ids_from_input_ids"):  # RoBERTa counts behind its padding id
        positions = positions + embeddings.padding_idx + 1
    return {"attention_mask": _mask(model, same), "position_ids": positions}


def _mask(model: PreTrainedModel, allowed: Tensor) -> Tensor:
    """[B, T, T] bool → [B, 1, T, T] as the model reads it: what is allowed, or what is added to the scores."""
    allowed = allowed.unsqueeze(1)
    if model.config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill_(~allowed, torch.finfo(torch.float32).min)


def _positions(document_ids: Tensor) -> Tensor:
    """Place of each token in its document's stretch of the block. [B, T] → [B, T]"""
    columns = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return columns - torch.where(begins, columns, 0).cummax(dim=1).values
