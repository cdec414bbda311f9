"""Document masking: keep attention inside each document of a packed row."""

import functools
import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.trial import ordinary_tokens, to_be_tried

_WITH_MASKS = ("eager", "sdpa")  # implementations of attention that take a mask of any shape
_LAYER_TYPES = {"full_attention", "sliding_attention"}  # values of `layer_types` in configs


def cannot_mask_reason(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> str | None:
    """Return why an architecture cannot mask attention between documents; None if no reason is known.

    Args:
        model_class: the class of the model, which is not built yet.
        config: its Hugging Face config.
    """
    module = sys.modules[model_class.__module__]
    if config.is_encoder_decoder:
        return "its decoder attends to another text than the one it writes"
    if model_class._is_stateful:
        return "its layers carry a state from token to token"
    if getattr(config, "alibi", False):
        return "its positions are counted over the whole row"
    if unknown := set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES:
        return f"it has layers of {', '.join(sorted(unknown))}"
    takes_masks = hasattr(module, "create_causal_mask") or hasattr(module, "create_bidirectional_mask")
    if not takes_masks and config.model_type != "deberta-v2":
        return "it takes no mask of a row's shape"
    return None


def enable_document_masking(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, causal: bool = False
) -> None:
    """Prepare the model for `document_mask_inputs`, and check that documents in a row do not interact.

    Args:
        model: the model; some architectures get a hook.
        tokenizer: its tokenizer, whose tokens the check uses.
        causal: whether a token sees only the tokens before it.

    Raises: UserError if hidden states of two documents in a row differ from those of each document
    alone.
    """
    fix = "data.isolate_documents=false, or data.examples=lines"
    model_type = model.config.model_type
    if reason := cannot_mask_reason(type(model), model.config):
        raise UserError(f"{model_type} cannot keep attention inside a document: {reason}", fix=fix)
    if model.config._attn_implementation not in _WITH_MASKS:
        option = f"model.attn_implementation={model.config._attn_implementation}"
        raise UserError(
            f"{option} cannot keep attention inside a document", fix="model.attn_implementation=sdpa"
        )
    if model_type == "deberta-v2":
        # DeBERTa's encoder takes a [B, T, T] mask, its embeddings one of [B, T].
        embeddings: Any = model.base_model.embeddings
        embeddings.register_forward_pre_hook(_one_mask_a_token, with_kwargs=True)
    if model_type == "bloom":
        body: Any = model.base_model
        body.build_alibi_tensor = _alibi_ignoring_documents(body.build_alibi_tensor)
    try:
        with to_be_tried(model) as tried:
            difference = _difference(tried, tokenizer, causal)
    except Exception as error:  # of any kind: the model's code may expect masks of another shape
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{model_type} cannot keep attention inside a document", reason, fix) from error
    if not difference < 1e-3:
        what = (
            f"{model_type} does not keep attention inside a document (logits differ by {difference:.2g})"
        )
        raise UserError(what, fix=fix)


def _difference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, causal: bool) -> float:
    """Return the largest difference between hidden states of two documents in one row and of each alone.

    It is relative to the largest hidden state.
    """
    tokens = ordinary_tokens(tokenizer, model.config, 12)[0][None]  # [1, T]
    documents = (torch.arange(tokens.shape[1]) >= tokens.shape[1] * 7 // 12).long()[None]  # [1, T]
    inputs = document_mask_inputs(model, documents, causal)
    together = model.base_model(input_ids=tokens, **inputs).last_hidden_state
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


def _alibi_ignoring_documents(build_from_padding_mask: Any) -> Any:
    """Return Bloom's `build_alibi_tensor` for masks [B, 1, T, T] too.

    Bloom derives positions from a padding mask [B, T]. Only differences of positions matter, so
    positions in the row serve for its documents too.
    """

    def build_alibi_tensor(attention_mask: Tensor, num_heads: int, dtype: torch.dtype) -> Tensor:
        if attention_mask.dim() == 4:
            num_rows = attention_mask.shape[0]
            length = attention_mask.shape[-1]
            attention_mask = attention_mask.new_ones(num_rows, length, dtype=torch.long)
        return build_from_padding_mask(attention_mask, num_heads, dtype)

    return build_alibi_tensor


def document_mask_inputs(
    model: PreTrainedModel, document_ids: Tensor, causal: bool = False
) -> dict[str, Any]:
    """Return inputs of the body that keep attention and positions within each token's document.

    Args:
        model: a model that `enable_document_masking` has prepared.
        document_ids: [B, T] number of each token's document, −1 for padding.
        causal: whether a token sees only the tokens before it.
    """
    same = document_ids[:, :, None] == document_ids[:, None, :]  # [B, T, T]
    positions = document_positions(document_ids)
    config = model.config
    if config.model_type == "deberta-v2":
        return {"attention_mask": same, "position_ids": positions}
    if causal:
        same = same.tril()
    inputs: dict[str, Any] = {"attention_mask": _masks(model, same, positions, causal)}
    if _takes_positions(type(model.base_model)):
        embeddings: Any = getattr(model.base_model, "embeddings", None)
        # RoBERTa's start after the padding id.
        if hasattr(embeddings, "create_position_ids_from_input_ids"):
            positions = positions + embeddings.padding_idx + 1
        inputs["position_ids"] = positions
    return inputs


@functools.cache
def _takes_positions(body: type[nn.Module]) -> bool:
    return "position_ids" in inspect.signature(body.forward).parameters


def _masks(model: PreTrainedModel, same: Tensor, positions: Tensor, causal: bool) -> Any:
    """Return one mask [B, 1, T, T], or {layer type: mask} if the model has several types of layers.

    Args:
        model: the model.
        same: [B, T, T] bool, which tokens each token may see.
        positions: [B, T] positions inside the document.
        causal: whether a token sees only the tokens before it.
    """
    config = model.config
    window = getattr(config, "sliding_window", None)
    default_type = "sliding_attention" if window else "full_attention"
    layer_types = set(getattr(config, "layer_types", None) or [default_type])
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
    if model.config._attn_implementation == "sdpa":
        return allowed
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill_(
        ~allowed, torch.finfo(torch.float32).min
    )


def document_positions(document_ids: Tensor) -> Tensor:
    """Return each token's position in its document [B, T], from `document_ids` [B, T]."""
    columns = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    return columns - torch.where(begins, columns, 0).cummax(dim=1).values
