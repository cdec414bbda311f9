"""Models: loaded from the hub or a folder, or built with random weights for a tokenizer."""

import logging
import warnings
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lmft.errors import UserError
from lmft.models.adapters import with_stored_adapters
from lmft.models.config import ModelConfig
from lmft.models.family import Family
from lmft.models.loading.folders import read
from lmft.models.loading.hf_config import folders_of

log = logging.getLogger("lmft")


def load_model(
    config: ModelConfig,
    family: Family,
    hf_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    num_new_tokens: int = 0,
) -> PreTrainedModel:
    """Load a model, or build one with random weights for the tokenizer; its weights are float32.

    Args:
        config: the model's options.
        family: its family.
        hf_config: its Hugging Face config.
        tokenizer: its tokenizer.
        num_new_tokens: how many tokens the tokenizer got in addition to its own; a loaded embedding grows by
            the rows that it lacks for them.

    Raises: UserError.
    """
    if config.from_scratch:
        model = _build(config, family, hf_config, tokenizer)
    else:
        model = _load(config, family, hf_config, tokenizer, num_new_tokens)
    if model.can_generate() and tokenizer.eos_token_id is not None:
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
        model.generation_config.eos_token_id = list(dict.fromkeys([*ends, tokenizer.eos_token_id]))
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            fix = "model.gradient_checkpointing=false"
            raise UserError(f"{hf_config.model_type} cannot compute activations a second time", fix=fix)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about a name of transformers' own
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()  # from_pretrained gives it in evaluation mode, in which dropout would stay off


def _options(config: ModelConfig, family: Family) -> dict[str, Any]:
    """Return the options for float32 weights, whatever they are stored as, and for the fastest attention."""
    attention = config.attn_implementation
    if attention == "auto" and family.is_fast_with_eager_attention and not torch.cuda.is_available():
        attention = "eager"
    options: dict[str, Any] = {"dtype": torch.float32}
    if attention != "auto":
        options["attn_implementation"] = attention
    return options


def _build(
    config: ModelConfig, family: Family, hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedModel:
    fit_to_tokenizer(hf_config, tokenizer)
    try:
        return family.auto_class.from_config(hf_config, **_options(config, family))
    except (ValueError, KeyError) as error:
        raise UserError(f"{config.name} cannot be built: {error}", where="model.config") from error


def _load(
    config: ModelConfig,
    family: Family,
    hf_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    num_new_tokens: int,
) -> PreTrainedModel:
    vocab_size = hf_config.get_text_config().vocab_size
    folder, adapters = folders_of(config)
    if not adapters and len(tokenizer) - num_new_tokens > vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the model's embedding only {vocab_size}",
            where=f"{config.tokenizer.name_or_path or 'a trained vocabulary'} with {config.name}",
            fix="model.tokenizer.name_or_path of the same model, or model.from_scratch=true",
        )
    options = {
        **config.hub_options,
        **_options(config, family),
        "output_loading_info": True,
        "config": hf_config,
    }
    model, info = read(family.auto_class, folder, "weights", options)
    if info["missing_keys"]:
        new = sorted(info["missing_keys"])
        log.warning(
            "not among the weights loaded, so new and random: %s%s", ", ".join(new[:3]), _and_more(new[3:])
        )
    if len(tokenizer) > vocab_size:
        log.info("the embedding grows from %d to %d tokens", vocab_size, len(tokenizer))
        model.resize_token_embeddings(len(tokenizer))
    return with_stored_adapters(model, adapters) if adapters else model


def _and_more(names: list[str]) -> str:
    return f" and {len(names)} more" if names else ""


def fit_to_tokenizer(hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """A new model gets the tokenizer's vocabulary and the ids of its special tokens.

    Other ids of the config are one of these under another name, and stay that: BART's decoder starts with the
    token that ends a text. Where a config does not say what the decoder starts with, that is the padding, as
    T5 has it.
    """
    names = {getattr(hf_config, f"{name}_token_id", None): name for name in ("bos", "eos", "pad")}
    hf_config.vocab_size = len(tokenizer)
    for name in ("pad", "bos", "eos", "cls", "sep", "mask"):
        token_id = getattr(tokenizer, f"{name}_token_id")
        if hasattr(hf_config, f"{name}_token_id"):
            setattr(hf_config, f"{name}_token_id", token_id)
    if hf_config.is_encoder_decoder:
        for role in ("decoder_start", "forced_bos", "forced_eos"):
            token_id = getattr(hf_config, f"{role}_token_id", None)
            name = "pad" if token_id is None and role == "decoder_start" else names.get(token_id)
            if name:
                setattr(hf_config, f"{role}_token_id", getattr(tokenizer, f"{name}_token_id"))
