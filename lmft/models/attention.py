"""Which attention a model uses, and how it is kept inside one document of a row."""

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.trial import ordinary_tokens, to_be_tried

_WITH_MASKS = ("eager", "sdpa")  # implementations of attention that take a mask of any shape
_KINDS = {"full_attention", "sliding_attention"}  # of layers, as configs name them in `layer_types`


def cannot_mask_reason(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str | None:
    """Why such a model cannot keep its documents apart, if that can be told before it is built; else None."""
    module = sys.modules[model_class.__module__]
    if config.is_encoder_decoder:
        return "its decoder attends to another text than it says"
    if model_class._is_stateful:
        return "its layers carry a state from token to token"
    if getattr(config, "alibi", False):
        return "its positions are counted over the whole row"
    if kinds := set(getattr(config, "layer_types", None) or ()) - _KINDS:
        return f"it has layers of {', '.join(sorted(kinds))}"
    takes_masks = hasattr(module, "create_causal_mask") or hasattr(module, "create_bidirectional_mask")
    if not takes_masks and config.model_type != "deberta-v2":
        return "it takes no mask of a row's shape"
    return None


def enable_document_masking(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, causal: bool = False
) -> None:
    """Makes the model ready for `isolated`, and tries it: two documents in a row must give what each gives
    alone.

    Raises UserError where they do not.
    """
    fix = "data.isolate_documents=false, or data.examples=lines"
    if why := cannot_mask_reason(type(model), model.config):
        raise UserError(f"{model.config.model_type} cannot keep attention inside a document: {why}", fix=fix)
    if model.config._attn_implementation not in _WITH_MASKS:
        which = f"model.attn_implementation={model.config._attn_implementation}"
        raise UserError(
            f"{which} cannot keep attention inside a document", fix="model.attn_implementation=sdpa"
        )
    if model.config.model_type == "deberta-v2":
        # DeBERTa's encoder takes a [B, T, T] mask, but its embeddings want one of [B, T].
        embeddings: Any = model.base_model.embeddings
        embeddings.register_forward_pre_hook(_one_mask_a_token, with_kwargs=True)
    if model.config.model_type == "bloom":
        model.base_model.build_alibi_tensor = _alibi_of(model.base_model.build_alibi_tensor)  # pyright: ignore
    try:
        with to_be_tried(model) as tried:
            difference = _difference(tried, tokenizer, causal)
    except Exception as error:  # of any kind: the code is the model's, and may want other masks
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{model.config.model_type} cannot keep attention inside a document", reason, fix
        ) from error
    if not difference < 1e-3:
        what = f"{model.config.model_type} does not keep attention inside a document (logits differ by {difference:.2g})"
        raise UserError(what, fix=fix)


def _difference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, causal: bool) -> float:
    """Largest difference between hidden states of two documents in one row and alone, as a share of the
    largest one.
    """
    tokens = ordinary_tokens(tokenizer, model.config, 12)[0][None]
    documents = (torch.arange(tokens.shape[1]) >= tokens.shape[1] * 7 // 12).long()[None]
    together = model.base_model(
        input_ids=tokens, **document_mask_inputs(model, documents, causal)
    ).last_hidden_state
    parts = [tokens[documents == number][None] for number in (0, 1)]
    alone = torch.cat([model.base_model(input_ids=part).last_hidden_state for part in parts], dim=1)
    return float((together - alone).abs().max() / alone.abs().max())


def _one_mask_a_token(
    _module: nn.Module, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, dict[str, Any]]:
    mask = kwargs.get("mask")
    if mask is not None and mask.dim() == 3:
        kwargs["mask"] = mask.any(-1)
    return args, kwargs


def _alibi_of(of_padding: Any) -> Any:
    """Bloom reads positions off a [B, T] mask. Only their differences matter, so any row's do inside a
    document too.
    """

    def build_alibi_tensor(attention_mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        is_isolating = attention_mask.dim() == 4
        whole = attention_mask.new_ones(attention_mask.shape[0], attention_mask.shape[-1], dtype=torch.long)
        return of_padding(whole if is_isolating else attention_mask, num_heads, dtype)

    return build_alibi_tensor


def document_mask_inputs(
    model: PreTrainedModel, document_ids: Tensor, causal: bool = False
) -> dict[str, Any]:
    """Body inputs under which a token sees its own document only, with positions counted from the document's
    start.

    document_ids: [B, T] number of each token's document, −1 for padding; causal: nor what comes after it.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]  # [B, T, T]
    positions = _positions(document_ids)
    config = model.config
    if config.model_type == "deberta-v2":
        return {"attention_mask": same, "position_ids": positions}
    if causal:
        same = same.tril()
    inputs: dict[str, Any] = {"attention_mask": _masks(model, same, positions, causal)}
    if "position_ids" in inspect.signature(model.base_model.forward).parameters:
        embeddings: Any = getattr(model.base_model, "embeddings", None)
        if hasattr(embeddings, "create_position_ids_from_input_ids"):  # RoBERTa counts behind its padding id
            positions = positions + embeddings.padding_idx + 1
        inputs["position_ids"] = positions
    return inputs


def _masks(model: PreTrainedModel, same: Tensor, positions: Tensor, causal: bool) -> Any:
    """One mask, or one for each kind of layer if there are several."""
    config = model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    masks = {"full_attention": same}
    if "sliding_attention" in kinds and window:
        distance = (positions[:, :, None] - positions[:, None, :]).abs()
        masks["sliding_attention"] = same & (distance < window if causal else distance <= window)
    masks = {kind: _mask(model, mask) for kind, mask in masks.items() if kind in kinds}
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _mask(model: PreTrainedModel, allowed: Tensor) -> Tensor:
    """[B, T, T] bool → [B, 1, T, T] as the model reads it: what is allowed, or what is added to the scores."""
    allowed = allowed.unsqueeze(1)
    if model.config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill_(
        ~allowed, torch.finfo(torch.float32).min
    )


def _positions(document_ids: Tensor) -> Tensor:
    """Place of each token in its document's stretch of the row. [B, T] → [B, T]"""
    columns = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return columns - torch.where(begins, columns, 0).cummax(dim=1).values
