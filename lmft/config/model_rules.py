"""Options of `model` that have an effect only under a condition."""

from typing import Any

from lmft.config.rule import Config, Rule, is_local


def _model(config: Config, key: str) -> Any:
    return config["model"].get(key)


def _tokenizer(config: Config, key: str) -> Any:
    return (config["model"].get("tokenizer") or {}).get(key)


def _is_other_vocabulary(config: Config) -> bool:
    is_named = _tokenizer(config, "name_or_path") != _model(config, "name_or_path")
    return is_named or bool(_tokenizer(config, "train"))


MODEL_RULES = (
    Rule(
        ("model.name_or_path",),
        lambda config: not _model(config, "from_scratch"),
        "a model that is loaded, and this one starts from random weights (model.from_scratch)",
        "leave model=… and model.from_scratch out to load it; model.shape_from=FOLDER takes its shape, "
        "model.tokenizer.name_or_path=FOLDER its vocabulary",
    ),
    Rule(
        ("model.revision",),
        lambda config: (
            not is_local(_model(config, "name_or_path")) or bool(_model(config, "trust_remote_code"))
        ),
        "a repository of the hub, and this model is a folder",
        "leave it out",
    ),
    Rule(
        ("model.shape_from",),
        lambda config: bool(_model(config, "from_scratch")),
        "a new model, and this one is loaded",
        "add model.from_scratch=true",
    ),
    Rule(
        ("model.architecture", "model.shape"),
        lambda config: not _model(config, "shape_from"),
        "a new model without model.shape_from, which names another one's architecture and shape",
        "model.config.NAME=VALUE changes a value of it",
    ),
    Rule(
        ("model.architecture", "model.shape"),
        lambda config: bool(_model(config, "from_scratch")),
        "a new model, and this one is loaded",
        "add model.from_scratch=true; model.config.NAME=VALUE changes a value of a model that is loaded",
    ),
    Rule(
        ("model.tokenizer.name_or_path",),
        lambda config: not _tokenizer(config, "train"),
        "a vocabulary that is loaded, and this one is trained (model.tokenizer.train)",
        "add model.tokenizer.train=false",
    ),
    Rule(
        (
            "model.tokenizer.vocab_size",
            "model.tokenizer.algorithm",
            "model.tokenizer.special_tokens",
            "model.tokenizer.lowercase",
            "model.tokenizer.strip_accents",
        ),
        lambda config: bool(_tokenizer(config, "train")),
        "a vocabulary that is trained, and this one is loaded",
        "add model.tokenizer.train=true model.from_scratch=true, or leave it out",
    ),
    Rule(
        ("model.tokenizer.replace",),
        lambda config: not _tokenizer(config, "replace") or _is_other_vocabulary(config),
        "another vocabulary than the model's own",
        "add model.tokenizer.name_or_path=FOLDER or model.tokenizer.train=true",
    ),
    Rule(
        (
            "model.lora.alpha",
            "model.lora.dropout",
            "model.lora.target_modules",
            "model.lora.modules_to_save",
            "model.lora.use_dora",
            "model.lora.use_rslora",
            "model.lora.init_lora_weights",
            "model.lora.merge",
        ),
        lambda config: bool((_model(config, "lora") or {}).get("r")),
        "adapters, and there are none (model.lora.r=0)",
        "add model.lora.r=16",
    ),
    Rule(
        ("model.generation",),
        lambda config: _model(config, "family") != "masked",
        "a model that generates text, and a masked one fills gaps",
        "leave it out",
    ),
)
