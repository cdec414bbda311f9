"""The Hugging Face config that a model's YAML leads to, and the auto class that reads or builds the model."""

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    PreTrainedConfig,
)

from lmft.errors import UserError, did_you_mean
from lmft.models.adapters import base_of
from lmft.models.config import ModelConfig
from lmft.models.family import Family
from lmft.models.loading.folders import read
from lmft.system.repositories import located

log = logging.getLogger("lmft")
# Names of configs' values, with the value by which a model attends to both sides, and the one by which it
# attends to the left alone. (BigBird's sparse attention sees both sides, whatever `is_decoder` says.)
_SIDES = (("is_decoder", False, True), ("attention_type", "block_sparse", "original_full"))


def load_config(config: ModelConfig, families: Mapping[str, Family]) -> PreTrainedConfig:
    """The Hugging Face config with `model.config`'s overrides, checked before any weight is read. Raises
    UserError.
    """
    hf_config = _new_config(config) if config.from_scratch else _stored_config(config)
    _check_family(config, families, hf_config)
    known = _options_of(hf_config)
    for name in config.config:
        if name not in known:
            raise UserError(
                f"model.config.{name}: a {hf_config.model_type} config has no such value{did_you_mean(name, known)}"
            )
    chosen = {**config.shape, **config.config} if config.from_scratch else config.config
    try:
        if config.from_scratch:  # by the constructor, which derives some values from others
            hf_config = AutoConfig.for_model(hf_config.model_type, **chosen)
        else:
            for name, value in chosen.items():
                setattr(hf_config, name, value)
    except StrictDataclassError as error:
        raise UserError(" ".join(str(error).split()), where="model.config") from error
    if families[config.family].is_causal:
        _make_causal(hf_config, chosen, has_only_adapters=config.lora.r > 0 and not config.lora.merge)
    return hf_config


def _make_causal(hf_config: PreTrainedConfig, chosen: Mapping[str, Any], has_only_adapters: bool) -> None:
    """Makes a config that lets a model attend to both sides one of a causal model, and says so. Raises
    UserError.

    A value that the model's code does not read stays: GPT-NeoX's config has an `is_decoder`, and is causal
    without.
    chosen: what the user wants of the config; has_only_adapters: whether model/ is to hold adapters, and no
    config.
    """
    code = _code_of(hf_config)
    for name, both_sides, left_alone in _SIDES:
        is_read = re.search(rf"^(?! *>>>).*\bconfig\.{name}\b", code, re.MULTILINE)
        if not is_read or getattr(hf_config, name, None) != both_sides:
            continue
        said = f"model.config.{name}={str(left_alone).lower()}"
        if name in chosen:
            what = f"{hf_config.model_type} attends to both sides, and so to the token that it is to predict"
            raise UserError(what, f"model.config.{name}={str(both_sides).lower()}", said)
        if has_only_adapters:
            what = f"{hf_config.model_type} is made causal by {said}, which adapters alone do not tell"
            raise UserError(what, "model.lora.merge=false", "model.lora.merge=true")
        log.warning(
            "%s attends to both sides; %s makes it causal, here and in model/", hf_config.model_type, said
        )
        setattr(hf_config, name, left_alone)


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
    """Where the model lies, and the adapters to be put on it, if the name is that of a folder of adapters
    alone.
    """
    folder = located(str(config.name_or_path), "model", config.revision)
    base = base_of(folder)
    return (folder, None) if base is None else (located(base, "model", config.revision), folder)


def _options_of(hf_config: PreTrainedConfig) -> set[str]:
    """What such a config takes: its values, their other names, and what the model's code reads without
    declaring it.
    """
    undeclared = re.findall(
        r'(?:getattr\((?:self\.)?config, |kwargs\.(?:get|pop)\()"(\w+)"', _code_of(hf_config)
    )
    start = ["decoder_start_token_id"] if hf_config.is_encoder_decoder else []
    return {*hf_config.to_dict(), *hf_config.attribute_map, *undeclared, *start}


def _code_of(hf_config: PreTrainedConfig) -> str:
    """The source of the config and of its models: configuration_bert.py, modeling_bert.py."""
    path = Path(inspect.getfile(type(hf_config)))
    name = path.stem.partition("_")[2]
    return "".join(file.read_text("utf-8") for file in path.parent.glob(f"*_{name}.py"))


def _check_family(config: ModelConfig, families: Mapping[str, Family], hf_config: PreTrainedConfig) -> None:
    if config.trust_remote_code or families[config.family].model_class(hf_config):
        return
    fitting = [name for name, family in families.items() if family.model_class(hf_config)]
    kind = " and ".join(fitting) or "no language model that lmft trains"
    fix = (
        f"model={fitting[0]} model.name_or_path={config.name}"
        if fitting
        else f"model={config.family}, or another"
    )
    raise UserError(f"{hf_config.model_type} is {kind}, not {config.family}", where=config.name, fix=fix)


def max_positions(hf_config: PreTrainedConfig) -> int | None:
    """The longest example the model takes, in tokens; None where nothing limits it."""
    positions = getattr(hf_config, "max_position_embeddings", None)
    if positions == -1:  # so XLNet's says
        return None
    if positions is not None and hf_config.model_type in (
        "roberta",
        "xlm-roberta",
        "camembert",
        "xlm-roberta-xl",
    ):
        return positions - hf_config.pad_token_id - 1  # their positions start behind the padding id
    return positions
