"""Add the options that others imply: the groups `model` and `data`, and what ends the training.

`python -m lmft.train model.name_or_path=FOLDER data.train=my.txt` then trains that model on that text,
whatever the defaults of the groups `model` and `data` are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from lmft.config.grammar import parse
from lmft.errors import UserError
from lmft.system.repositories import read_config, shape_file, stored_config

_TEXT_OPTIONS = ("data.train", "data.path", "data.sources")
# Format -> the YAML of conf/data/ with its usual values.
READERS = {
    **dict.fromkeys(("chat", "messages", "sharegpt", "prompt_completion", "alpaca"), "chat"),
    "marked_text": "chat",
    "pairs": "pairs",
}
_ENDINGS = {  # ending of the name of the class that a model was saved from -> family
    "ForMaskedLM": "masked",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
}


def with_implied_choices(overrides: Sequence[str], ask_hub: bool = True) -> list[str]:
    """Return the overrides with the choices of `model` and `data` that they imply.

    A choice that the user makes takes precedence: `model=…`, `data=…`, or an `experiment`, which may
    choose both. A sweep over folders implies nothing; each of its jobs does, for its one folder.

    Args:
        overrides: `key=value` arguments.
        ask_hub: whether the config of a model that is not in the cache may be downloaded.

    Raises: UserError if the folder holds no language model, or the hub does not respond.
    """
    given = {override.key_or_group: override for override in map(parse, overrides)}
    if "experiment" in given or _text(given, "run"):
        return list(overrides)
    implied = []
    name = _text(given, "model.name_or_path")
    shape = _text(given, "model.shape_from")
    if shape and not name and "model" not in given:
        path = shape_file(shape, ask_hub)
        if path is not None:
            implied.append(f"model={_family(read_config(path), shape)}")
    if name and "model" not in given:
        family = family_of(name, _text(given, "model.revision"), ask_hub)
        if family:
            implied.append(f"model={family}")
    if "data" not in given and any(option in given for option in _TEXT_OPTIONS):
        format_name = _text(given, "data.format") or ""
        implied.append(f"data={READERS.get(format_name, 'files')}")
    return [*overrides, *implied]


def with_implied_end(overrides: Sequence[str]) -> list[str]:
    """Return the overrides, with no limit of epochs if they only limit steps or tokens.

    Otherwise the number of epochs of the model's recipe could end the training before
    `trainer.max_steps`. A sweep over `trainer.max_steps` implies nothing; each of its jobs does.
    """
    given = {override.key_or_group: override for override in map(parse, overrides)}
    has_steps = _text(given, "trainer.max_steps") not in (None, "-1")
    has_tokens = _text(given, "trainer.max_tokens") is not None
    if (has_steps or has_tokens) and "trainer.max_epochs" not in given:
        return [*overrides, "trainer.max_epochs=-1"]
    return list(overrides)


def family_of(name_or_path: str, revision: str | None = None, ask_hub: bool = True) -> str | None:
    """Return the family of a folder's or a repository's model: masked, causal, seq2seq or permuted.

    None if the repository's config is not cached and the hub may not be asked. Raises: UserError.
    """
    config = stored_config(name_or_path, revision, ask_hub)
    if config is None:
        return None
    return _family(config, name_or_path)


def _text(given: Mapping[str, Override], key: str) -> str | None:
    """Return the value of an override; None if it is not given, or is a sweep over several."""
    override = given.get(key)
    if (
        override is None
        or override.is_delete()
        or override.is_sweep_override()
        or override.value() is None
    ):
        return None
    return str(override.value())


def _family(config: Mapping[str, Any], name_or_path: str) -> str:
    """Return the family by the class that the model was saved from.

    If that class has no language modelling head, the family is the first in which transformers has a
    class for the model type.
    """
    if config.get("model_type") == "xlnet":
        return "permuted"
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    classes = [*(config.get("architectures") or []), *(config.get("auto_map") or {})]
    for ending, family in _ENDINGS.items():
        if any(name.endswith(ending) for name in classes):
            return family

    from transformers.models.auto import modeling_auto

    known = {
        "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    for family, model_types in known.items():
        if config.get("model_type") in model_types:
            return family
    what = f"{config.get('model_type')} is not a language model that lmft trains"
    raise UserError(what, f"model.name_or_path={name_or_path}", "name the folder of a language model")
