"""Load a model from the hub or a folder, or build one with random weights for a tokenizer."""

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
from lmft.models.loading.generation_config import add_ends, mend_generation
from lmft.models.loading.hf_config import folders_of
from lmft.models.loading.rows import Rows, fit_rows
from lmft.models.torch_functions import use_torch_functions
from lmft.reporting.facts import short
from lmft.system.token_ids import num_ids

log = logging.getLogger(__name__)


def load_model(
    config: ModelConfig,
    family: Family,
    hf_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows | None = None,
    has_weights: bool = True,
) -> PreTrainedModel:
    """Load a model, or build one with random weights for the tokenizer; its weights are float32.

    Args:
        config: the model's options.
        family: its family.
        hf_config: its Hugging Face config.
        tokenizer: its tokenizer.
        rows: where a loaded model's rows come from; None: the tokenizer is the model's own.
        has_weights: False: nothing is read or drawn, and all tensors have shapes and no content.

    Raises: UserError.
    """
    rows = rows or Rows(num_ids(tokenizer), new={})
    if not has_weights:
        model = _without_weights(config, family, hf_config, tokenizer, rows)
    elif config.from_scratch:
        model = _build(config, family, hf_config, tokenizer)
    else:
        model = _load(config, family, hf_config, rows)
    use_torch_functions(model)
    mend_generation(model)
    end: Any = tokenizer.eos_token_id
    add_ends(model, [] if end is None else [end])
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            fix = "model.gradient_checkpointing=false"
            raise UserError(f"{hf_config.model_type} cannot compute activations a second time", fix=fix)
        with warnings.catch_warnings():
            # About an attribute that transformers itself uses.
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()  # from_pretrained returns it in evaluation mode, without dropout


_RATES_OF_ATTENTION = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def _options(config: ModelConfig, family: Family, hf_config: PreTrainedConfig) -> dict[str, Any]:
    """Return arguments of `from_pretrained`: float32 weights, and the fastest attention."""
    attention = config.attn_implementation
    # With dropout, scaled_dot_product_attention stores the scores too, and uses torch's slower dropout.
    drops_scores = any(getattr(hf_config, rate, 0) for rate in _RATES_OF_ATTENTION)
    is_fast_with_eager = family.is_fast_with_eager_attention or drops_scores
    if attention == "auto" and is_fast_with_eager and not torch.cuda.is_available():
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
        model = family.auto_class.from_config(hf_config, **_options(config, family, hf_config))
    except (ValueError, KeyError) as error:
        raise UserError(f"{config.name} cannot be built: {error}", where="model.config") from error
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    shape = [f"{name} {getattr(hf_config, name)}" for name in names if hasattr(hf_config, name)]
    log.info(
        "a new %s with %s random weights: %s; its shape is that of %s",
        hf_config.model_type,
        short(model.num_parameters()),
        ", ".join(shape),
        config.shape_from or "model.architecture, model.shape and model.config",
    )
    return model


def _without_weights(
    config: ModelConfig,
    family: Family,
    hf_config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
) -> PreTrainedModel:
    """Return a model as `_build` or `_load` would, but for its weights."""
    if config.from_scratch:
        fit_to_tokenizer(hf_config, tokenizer)
    with torch.device("meta"):
        model = family.auto_class.from_config(hf_config, **_options(config, family, hf_config))
    if not config.from_scratch:
        folder, adapters = folders_of(config)
        model.name_or_path = [folder, *adapters][-1]
        fit_rows(model, rows)
    return model


def _load(
    config: ModelConfig,
    family: Family,
    hf_config: PreTrainedConfig,
    rows: Rows,
) -> PreTrainedModel:
    vocab_size = hf_config.get_text_config().vocab_size
    folder, adapters = folders_of(config)
    lacks_rows = any(token_id not in rows.new for token_id in range(vocab_size, rows.size))
    if lacks_rows and not adapters and rows.moved is None:
        raise UserError(
            f"the tokenizer's ids go up to {rows.size - 1}, the model's embedding has only "
            f"{vocab_size} rows",
            where=f"{config.tokenizer.name_or_path or 'a trained vocabulary'} with {config.name}",
            fix="model.tokenizer.name_or_path of the same model, or model.from_scratch=true",
        )
    options = {
        **config.hub_options,
        **_options(config, family, hf_config),
        "output_loading_info": True,
        "config": hf_config,
    }
    model, info = read(family.auto_class, folder, "weights", options)
    if info["missing_keys"]:
        new = sorted(info["missing_keys"])
        more = f" and {len(new) - 3} more" if len(new) > 3 else ""
        log.warning("newly initialised (not in the checkpoint): %s%s", ", ".join(new[:3]), more)
    fit_rows(model, rows)
    if (num_rows := model.get_input_embeddings().num_embeddings) != vocab_size:
        log.info("the embedding had %d rows and has %d now", vocab_size, num_rows)
    for adapter_folder in adapters:
        model = with_stored_adapters(model, adapter_folder)
    return model


def fit_to_tokenizer(hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give a new model's config the size of the tokenizer's vocabulary and the ids of its special
    tokens.

    Ids of the decoder (start, forced begin and end) keep their role: BART's decoder starts with the
    token that ends a text. A config without a start gets the padding token, as in T5.
    """
    names = {getattr(hf_config, f"{name}_token_id", None): name for name in ("bos", "eos", "pad")}
    hf_config.vocab_size = num_ids(tokenizer)
    for name in ("pad", "bos", "eos", "cls", "sep", "mask"):
        token_id = getattr(tokenizer, f"{name}_token_id")
        if hasattr(hf_config, f"{name}_token_id"):
            setattr(hf_config, f"{name}_token_id", token_id)
    if hf_config.is_encoder_decoder:
        for role in ("decoder_start", "forced_bos", "forced_eos"):
            token_id = getattr(hf_config, f"{role}_token_id", None)
            name = names.get(token_id)
            if token_id is None and role == "decoder_start":
                name = "pad"
            if name:
                setattr(hf_config, f"{role}_token_id", getattr(tokenizer, f"{name}_token_id"))
