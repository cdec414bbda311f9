"""Keep attention inside each document of a packed row: by kernels that skip the others, or by masks."""

import logging
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models import packed_attention
from lmft.models.attention_inputs import (
    document_inputs,
    is_packed,
    mask_inputs,
    num_sliding_layers,
    plain_inputs,
)
from lmft.models.trial import ordinary_tokens, to_be_tried

log = logging.getLogger(__name__)

# Implementations of attention that take a mask of any shape.
_WITH_MASKS = ("eager", "sdpa", packed_attention.NAME)
_MOST = 1e-3  # difference of hidden states that are to be equal, as a share of the largest
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


def use_packed_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, causal: bool, isolates: bool
) -> bool:
    """Let the model attend without masks, if it uses torch's kernels and computes the same so.

    Args:
        model: the model; it stays as it is if it cannot.
        tokenizer: its tokenizer, whose tokens the trial uses.
        causal: whether a token sees only the tokens before it.
        isolates: whether rows hold documents that must not see each other.

    Returns: whether it does.
    """
    kind = model.config.model_type
    if model.config._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return False
    if isolates and cannot_mask_reason(type(model), model.config):
        return False
    try:
        with to_be_tried(model) as tried:
            tokens = ordinary_tokens(tokenizer, model.config, 12)[0][None]  # [1, T]
            expected = tried.base_model(input_ids=tokens).last_hidden_state
            tried.set_attn_implementation(packed_attention.NAME)
            difference = 0.0
            if causal:
                found = _hidden(tried, tokens, plain_inputs(tried, tokens))
                difference = float((found - expected).abs().max() / expected.abs().max())
            if isolates:
                difference = max(difference, _difference(tried, tokens, causal))
    except Exception as error:  # of any kind: the model's code may take no such arguments
        log.info("%s uses attention masks: %s", kind, " ".join(str(error).split())[:200])
        return False
    if not difference < _MOST:
        log.info("%s uses attention masks: without them, hidden states differ by %.2g", kind, difference)
        return False
    model.set_attn_implementation(packed_attention.NAME)
    return True


def _hidden(model: PreTrainedModel, tokens: Tensor, inputs: dict[str, Any]) -> Tensor:
    """Return hidden states without masks. [1, T, D]

    Raises: ValueError if a layer does not ask for its window, which only its mask would then keep to.
    """
    seen: list[int | None] = []
    hidden = model.base_model(input_ids=tokens, windows_seen=seen, **inputs).last_hidden_state
    asked_for = sum(window is not None for window in seen)
    if not seen or asked_for != num_sliding_layers(model.config, len(seen)):
        raise ValueError(f"{asked_for} of {len(seen)} layers ask for a window")
    return hidden


def enable_document_masking(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    causal: bool = False,
    is_tried: bool = False,
) -> None:
    """Prepare the model for `document_inputs`, and check that documents in a row do not interact.

    Args:
        model: the model; some architectures get a hook.
        tokenizer: its tokenizer, whose tokens the check uses.
        causal: whether a token sees only the tokens before it.
        is_tried: True: it was checked before, perhaps in another process.

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
    if is_tried:
        return
    try:
        with to_be_tried(model) as tried:
            tokens = ordinary_tokens(tokenizer, tried.config, 12)[0][None]  # [1, T]
            difference = _difference(tried, tokens, causal)
    except Exception as error:  # of any kind: the model's code may expect masks of another shape
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{model_type} cannot keep attention inside a document", reason, fix) from error
    if not difference < _MOST:
        what = (
            f"{model_type} does not keep attention inside a document (logits differ by {difference:.2g})"
        )
        raise UserError(what, fix=fix)


def _difference(model: PreTrainedModel, tokens: Tensor, causal: bool) -> float:
    """Return the largest difference between hidden states of two documents in one row and of each alone.

    It is relative to the largest hidden state. tokens: [1, T], those of both documents.
    """
    documents = (torch.arange(tokens.shape[1]) >= tokens.shape[1] * 7 // 12).long()[None]  # [1, T]
    parts = [tokens[documents == number][None] for number in (0, 1)]
    alone = torch.cat([model.base_model(input_ids=part).last_hidden_state for part in parts], dim=1)
    # Masks are tried in any case: devices and number formats without a kernel need them.
    inputs = mask_inputs(model, documents, causal)
    found = [model.base_model(input_ids=tokens, **inputs).last_hidden_state]
    if is_packed(model):
        found.append(_hidden(model, tokens, document_inputs(model, documents, causal)))
    return float(max((each - alone).abs().max() for each in found) / alone.abs().max())


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
