"""The Hugging Face config that a model's YAML leads to, and the auto class that reads or builds the model."""

import inspect
import logging
import re
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from lmft.errors import UserError, did_you_mean
from lmft.models.adapters import base_of
from lmft.models.config import ModelConfig
from lmft.models.folders import located, read

log = logging.getLogger("lmft")
AUTO_CLASSES: dict[str, Any] = {
    "masked": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "permuted": AutoModelForCausalLM,
}


def load_config(config: ModelConfig) -> PreTrainedConfig:
    """The Hugging Face config with `model.config`'s overrides, checked before any weight is read. Raises UserError."""
    hf_config = _new_config(config) if config.from_scratch else _stored_config(config)
    _check_family(config, hf_config)
    known = _options_of(hf_config)
    for name in config.config:
        if name not in known:
            raise UserError(
                f"model.config.{name}: a {hf_config.model_type} config has no such value{did_you_mean(name, known)}"
            )
    try:
        if config.from_scratch:  # by the constructor, which derives some values from others
            return AutoConfig.for_model(hf_config.model_type, **{**config.shape, **config.config})
        for name, value in config.config.items():
            setattr(hf_config, name, value)
    except StrictDataclassError as error:
        raise UserError(" ".join(str(error).split()), where="model.config") from error
    return hf_config


def _new_config(config: ModelConfig) -> PreTrainedConfig:
    try:
        return AutoConfig.for_model(str(config.architecture))
    except ValueError:
        known = did_you_mean(str(config.architecture), transformers.CONFIG_MAPPING)
        raise UserError(f"model.architecture={config.architecture} is no model_type{known}") from None


def _stored_config(config: ModelConfig) -> PreTrainedConfig:
    folder, _ = folders_of(config)
    if config.trust_remote_code:
        log.warning("model.trust_remote_code: runs code of %s at %s", config.name_or_path, config.revision)
    return read(AutoConfig, folder, "config.json", config.hub_options)


def folders_of(config: ModelConfig) -> tuple[str, str | None]:
    """Where the model lies, and the adapters to be put on it, if the name is that of a folder of adapters alone."""
    folder = located(str(config.name_or_path), "model", config.revision)
    base = base_of(folder)
    return (folder, None) if base is None else (located(base, "model", config.revision), folder)


def _options_of(hf_config: PreTrainedConfig) -> set[str]:
    """What such a config takes: its values, their other names, and what the model's code reads without declaring it."""
    folder = Path(inspect.getfile(type(hf_config))).parent
    code = "".join(file.read_text("utf-8") for file in folder.glob(f"*_{folder.name}.py"))
    undeclared = re.findall(r'(?:getattr\((?:self\.)?config, |kwargs\.(?:get|pop)\()"(\w+)"', code)
    start = ["decoder_start_token_id"] if hf_config.is_encoder_decoder else []
    return {*hf_config.to_dict(), *hf_config.attribute_map, *undeclared, *start}


def model_class(family: str, hf_config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """The class that a family's model of such a config has; None where there is none.

    transformers also knows BART as a masked model and its decoder as a causal one, and XLNet as a causal one, of which
    none is trained in that way.
    """
    possible = ("masked", "causal")
    if hf_config.is_encoder_decoder:
        possible = ("seq2seq",)
    elif hf_config.model_type == "xlnet":
        possible = ("permuted",)
    return AUTO_CLASSES[family]._model_mapping.get(type(hf_config), None) if family in possible else None


def families_of(model_type: str) -> list[str]:
    """The families that models of such a config can be trained as, the likeliest first; none if it is not known."""
    try:
        hf_config = AutoConfig.for_model(model_type)
    except ValueError:
        return []
    return [family for family in AUTO_CLASSES if model_class(family, hf_config)]


def _check_family(config: ModelConfig, hf_config: PreTrainedConfig) -> None:
    if config.trust_remote_code or model_class(config.family, hf_config):
        return
    families = [family for family in AUTO_CLASSES if model_class(family, hf_config)]
    kind = " and ".join(families) or "no language model that lmft trains"
    fix = f"model={families[0]} model.name_or_path={config.name}" if families else f"model={config.family}, or another"
    raise UserError(f"{hf_config.model_type} is {kind}, not {config.family}", where=config.name, fix=fix)


def max_positions(hf_config: PreTrainedConfig) -> int | None:
    """The longest example the model takes, in tokens; None where nothing limits it."""
    positions = getattr(hf_config, "max_position_embeddings", None)
    if positions == -1:  # so XLNet's says
        return None
    if positions is not None and hf_config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"):
        return positions - hf_config.pad_token_id - 1  # their positions start behind the padding id
    return positions
