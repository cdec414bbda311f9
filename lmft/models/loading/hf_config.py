"""Make the Hugging Face config of a model from `model` of the config, and check it."""

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, modeling_rope_utils

from lmft.errors import UserError, did_you_mean
from lmft.models.config import ModelConfig
from lmft.models.family import Family
from lmft.models.loading.folders import read
from lmft.models.loading.generation_config import check_stored
from lmft.system.repositories import base_of_adapters, located, shape_file

log = logging.getLogger(__name__)
# Options of configs: their name, bidirectional value and causal value. (BigBird's sparse attention is
# bidirectional, whatever `is_decoder` is.)
_DIRECTION_OPTIONS = (("is_decoder", False, True), ("attention_type", "block_sparse", "original_full"))


def load_config(config: ModelConfig, families: Mapping[str, Family]) -> PreTrainedConfig:
    """Return the Hugging Face config with the overrides of `model.config`; no weights are read.

    Args:
        config: the options of `model`.
        families: all families by name.

    Raises: UserError if the model is of another family, an override is unknown, or its value impossible.
    """
    hf_config = _new_config(config) if config.from_scratch else _stored_config(config)
    _check_family(config, families, hf_config)
    known = _options_of(hf_config)
    for name in config.config:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(
                f"model.config.{name}: a {hf_config.model_type} config has no such value{hint}"
            )
        # Dropout is for training alone.
        if _exports_adapters(config) and not config.from_scratch and "drop" not in name:
            what = f"adapters alone do not record model.config.{name}, so they would be used without it"
            raise UserError(what, "model.lora.merge=false", "model.lora.merge=true")
    overrides = config.config
    try:
        if config.from_scratch:  # by the constructor, which derives some values from others
            shape = _given_values(hf_config) if config.shape_from else config.shape
            overrides = _merged(shape, config.config)
            hf_config = AutoConfig.for_model(hf_config.model_type, **overrides)
        else:
            _set_values(hf_config, overrides)
        if "rope_parameters" in config.config:
            _check_rope(hf_config)
    except (StrictDataclassError, KeyError) as error:  # KeyError: of rotary positions
        raise UserError(" ".join(str(error.args[0]).split()), where="model.config") from error
    if families[config.family].is_causal:
        _make_causal(hf_config, overrides, _exports_adapters(config))
    return hf_config


def _set_values(hf_config: PreTrainedConfig, values: Mapping[str, Any]) -> None:
    """Set values of a config; a dict changes the entries that it names, and keeps the others."""
    for name, value in values.items():
        stored = getattr(hf_config, name, None)
        if isinstance(stored, PreTrainedConfig) and isinstance(value, Mapping):
            _set_values(stored, value)
        elif isinstance(stored, Mapping) and isinstance(value, Mapping):
            setattr(hf_config, name, _merged(stored, value))
        else:
            setattr(hf_config, name, value)


def _check_rope(hf_config: PreTrainedConfig) -> None:
    """Check the entries of the rotary positions.

    Raises: UserError for one that nothing reads; KeyError, by transformers, for one that is missing.
    """
    where = "model.config.rope_parameters"
    given = getattr(hf_config, "rope_parameters", None) or {}
    nested = [entry for entry in given.values() if isinstance(entry, Mapping)]
    code = inspect.getsource(modeling_rope_utils) + _code_of(hf_config)
    known = set(re.findall(r"""["'](\w+)["']""", code))
    for name in [name for entries in nested or [given] for name in entries]:
        if name not in known:
            raise UserError(f"nothing reads {where}.{name}{did_you_mean(name, known)}")
    hf_config.validate_rope()


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes`, those of dicts inside too; keys keep the type that they have."""
    merged = dict(values)
    keys = {str(key): key for key in values}
    for name, change in changes.items():
        key = keys.get(str(name), name)
        value = merged.get(key)
        if isinstance(value, Mapping) and isinstance(change, Mapping):
            change = _merged(value, change)
        merged[key] = change
    return merged


def _make_causal(
    hf_config: PreTrainedConfig, overrides: Mapping[str, Any], exports_adapters: bool
) -> None:
    """Switch bidirectional attention off in the config, with a warning.

    Options that the model's code does not read stay: GPT-NeoX is causal whatever its `is_decoder` is.

    Args:
        hf_config: the model's config; changed in place.
        overrides: the user's values of the config.
        exports_adapters: whether model/ will hold adapters alone, without a config.

    Raises: UserError if the user asked for bidirectional attention, or the change cannot be exported.
    """
    code = _code_of(hf_config)
    for name, bidirectional, causal in _DIRECTION_OPTIONS:
        is_read = re.search(rf"^(?! *>>>).*\bconfig\.{name}\b", code, re.MULTILINE)
        if not is_read or getattr(hf_config, name, None) != bidirectional:
            continue
        change = f"model.config.{name}={str(causal).lower()}"
        if name in overrides:
            kind = hf_config.model_type
            what = f"{kind} attends to both sides, and so to the token that it is to predict"
            raise UserError(what, f"model.config.{name}={str(bidirectional).lower()}", change)
        if exports_adapters:
            what = (
                f"{hf_config.model_type} is made causal by {change}, which adapters alone do not record"
            )
            raise UserError(what, "model.lora.merge=false", "model.lora.merge=true")
        log.warning(
            "%s attends to both sides; %s makes it causal, here and in model/",
            hf_config.model_type,
            change,
        )
        setattr(hf_config, name, causal)


def _new_config(config: ModelConfig) -> PreTrainedConfig:
    if config.shape_from:
        path = shape_file(config.shape_from)
        return read(AutoConfig, str(path), "config.json", {})
    try:
        return AutoConfig.for_model(str(config.architecture))
    except ValueError:
        hint = did_you_mean(str(config.architecture), transformers.CONFIG_MAPPING)
        raise UserError(f"model.architecture={config.architecture} is not a model_type{hint}") from None


def _given_values(hf_config: PreTrainedConfig) -> dict[str, Any]:
    """Return the values of a config that differ from its class's defaults, without those that the
    constructor derives from others: a list with an entry for each layer.
    """
    values = hf_config.to_diff_dict()
    about_weights = (
        *("architectures", "transformers_version", "dtype", "model_type", "auto_map"),
        "quantization_config",
    )
    values = {name: value for name, value in values.items() if name not in about_weights}
    for name in [name for name, value in values.items() if isinstance(value, list)]:
        fewer = {other: value for other, value in values.items() if other != name}
        derived = AutoConfig.for_model(hf_config.model_type, **fewer)
        if getattr(derived, name, None) == values[name]:
            values = fewer
    return values


def _stored_config(config: ModelConfig) -> PreTrainedConfig:
    folder, adapters = folders_of(config)
    if adapters and _exports_adapters(config):
        what = "the base of new adapters would be a folder of adapters, which adapters cannot name"
        fix = "model.lora.merge=true, which exports a whole model; or merge the first ones that way"
        raise UserError(what, f"model.lora.merge=false with {config.name_or_path}", fix)
    if config.trust_remote_code:
        log.warning(
            "model.trust_remote_code: runs code of %s at %s", config.name_or_path, config.revision
        )
    hf_config = read(AutoConfig, folder, "config.json", config.hub_options)
    _check_is_not_quantized(hf_config, folder)
    if config.family != "masked":  # masked models generate nothing
        for each in (folder, *adapters):
            check_stored(each)
    return hf_config


def _check_is_not_quantized(hf_config: PreTrainedConfig, folder: str) -> None:
    """Raise UserError if the weights are stored in a quantized format."""
    quantization: Any = getattr(hf_config, "quantization_config", None)
    if not quantization:
        return
    if not isinstance(quantization, Mapping):
        quantization = quantization.to_dict()
    method = quantization.get("quant_method", "an unknown method")
    raise UserError(
        f"the weights are quantized ({method}), and lmft trains and exports weights of 16 or 32 bits",
        folder,
        "name the model's folder or repository before it was quantized; model.lora.r=16 saves memory",
    )


def _exports_adapters(config: ModelConfig) -> bool:
    return config.lora.r > 0 and not config.lora.merge


def folders_of(config: ModelConfig) -> tuple[str, list[str]]:
    """Return the model's folder or hub id, and the folders of adapters to add to it, in their order.

    A folder that holds adapters alone names their base model, which can be such a folder, too.

    Raises: UserError.
    """
    folder = located(str(config.name_or_path), "model", config.revision)
    adapters: list[str] = []
    while base := base_of_adapters(Path(folder)):
        if folder in adapters:
            raise UserError("adapters that name themselves as their base model", folder)
        adapters.insert(0, folder)
        revision = base.revision or config.revision
        folder = located(base.name_or_path, "model", revision)
        if revision != config.revision and not Path(folder).is_dir():
            what = f"the adapters' base model, {folder} at {revision}, is not in the cache"
            raise UserError(what, adapters[0], f"hf download {folder} --revision {revision}")
    return folder, adapters


def _options_of(hf_config: PreTrainedConfig) -> set[str]:
    """Return the names of the config's options, their aliases, and undeclared options that the code
    reads.
    """
    undeclared = re.findall(
        r'(?:getattr\((?:self\.)?config, |kwargs\.(?:get|pop)\()"(\w+)"', _code_of(hf_config)
    )
    start = ["decoder_start_token_id"] if hf_config.is_encoder_decoder else []
    return {*hf_config.to_dict(), *hf_config.attribute_map, *undeclared, *start}


def _code_of(hf_config: PreTrainedConfig) -> str:
    """Return the source code of the config and its models: configuration_bert.py, modeling_bert.py."""
    path = Path(inspect.getfile(type(hf_config)))
    name = path.stem.partition("_")[2]
    return "".join(file.read_text("utf-8") for file in path.parent.glob(f"*_{name}.py"))


def _check_family(
    config: ModelConfig, families: Mapping[str, Family], hf_config: PreTrainedConfig
) -> None:
    if config.trust_remote_code or families[config.family].model_class(hf_config):
        return
    fitting = [name for name, family in families.items() if family.model_class(hf_config)]
    kind = " and ".join(fitting) or "no language model that lmft trains"
    if fitting:
        fix = f"model={fitting[0]} model.name_or_path={config.name}"
    else:
        fix = f"model={config.family}, or another"
    raise UserError(f"{hf_config.model_type} is {kind}, not {config.family}", where=config.name, fix=fix)
