"""Warnings about options that do not fit the model, the text, or each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from lmft.data.examples.documents import Documents
from lmft.objectives.base import SPECIAL
from lmft.preflight.finding import Finding
from lmft.preflight.sample import spread

Facts = Mapping[str, Any]
_FLOAT16 = ("16-mixed", "16-true")
# Relatives of T5 whose class does not tell it, as those with `_keep_in_fp32_modules` do.
_LIKE_T5 = ("longt5", "switch_transformers")
_SAMPLED = 2000  # documents whose lengths are looked at
_SAMPLED_ENDS = 100  # documents whose last tokens are
_FAR_LONGER = 8  # times as long as a block, from which on documents are called far longer
_USUAL_LENGTH = 512  # tokens; suggested for models without a limit


def float16_overflows(model: PreTrainedModel, precision: str) -> Finding | None:
    """Return a finding if a model of T5's kind is trained in float16.

    Its feed-forward layers have activations above 65,504, the largest number of float16. For weights in
    float16 transformers keeps their output projections, `wo`, in float32; autocast computes those in
    float16 all the same.
    """
    kept = getattr(model, "_keep_in_fp32_modules", None) or ()
    is_like_t5 = "wo" in kept or model.config.model_type in _LIKE_T5
    if precision not in _FLOAT16 or not is_like_t5:
        return None
    text = (
        f"trainer.precision={precision}: activations of {model.config.model_type} exceed 65,504, "
        "the largest float16"
    )
    return Finding("float16", text, "trainer.precision=bf16-mixed or 32-true")


def too_short_training(facts: Facts) -> Finding | None:
    """Return a finding if the training ends before its learning rate has risen to its full value."""
    training = facts["training"]
    steps = training["steps"]
    warmup = training["warmup_steps"]
    if steps is None or warmup < steps:
        return None
    text = f"the warm-up takes {warmup:,} steps and the whole training {steps:,}"
    return Finding("warmup", text, "scheduler.warmup=0.1, a tenth of all steps, or a longer training")


def no_end_of_text(texts: Documents, is_causal: bool) -> Finding | None:
    """Return a finding if no token tells a causal model where a document ends."""
    starts, stops = texts.spans_at(spread(len(texts), _SAMPLED_ENDS))
    last = stops[stops > starts] - 1
    if not is_causal or (texts.store.flags[last] & SPECIAL).any():
        return None
    text = (
        f"the tokenizer has no end-of-text token, so nothing separates the {len(texts):,} documents "
        "and the model will not learn to stop"
    )
    return Finding("end_of_text", text, "a tokenizer with an eos_token")


def short_blocks(texts: Documents, block_size: int, positions: int | None, split: str) -> Finding | None:
    """Return a finding if documents are far longer than a block, and the model takes longer ones.

    Args:
        texts: the documents.
        block_size: of the data.
        positions: the longest input of the model, in tokens; None: no limit.
        split: the documents' name.
    """
    possible = positions or _USUAL_LENGTH
    starts, stops = texts.spans_at(spread(len(texts), _SAMPLED))
    median = float(np.median(stops - starts)) if len(texts) else 0.0
    if median < _FAR_LONGER * block_size or possible < 2 * block_size:
        return None
    text = (
        f"{split}: half of the documents have {median:,.0f} tokens or more, and a block has "
        f"{block_size}: longer dependencies are not learnt"
    )
    fix = f"data.block_size={possible}, which the model takes, with a smaller data.batch_size"
    return Finding("block_size", text, fix)


def short_of_memory(memory: Mapping[str, Any]) -> Finding | None:
    """Return a finding if weights, gradients and optimizer state alone exceed the memory."""
    free = memory["free_bytes"]
    if free is None or memory["fixed_bytes"] <= free:
        return None
    text = (
        f"weights, gradients and the optimizer's state take {memory['fixed_bytes'] / 1e9:.3g} GB, "
        f"and {free / 1e9:.3g} GB of memory are free"
    )
    return Finding("memory", text, "model.lora.r=8, model.freeze=[embeddings], or a smaller model")
