"""Tokenizers and models: from the hub, from a folder, or from scratch."""

import inspect
import logging
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from filelock import FileLock
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lmft import hub
from lmft.errors import UserError, did_you_mean
from lmft.models.adapters import LoraConfig, base_of, with_stored_adapters
from lmft.models.vocabulary import train_vocabulary

log = logging.getLogger("lmft")
AUTO_CLASSES: dict[str, Any] = {
    "masked": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
    "seq2seq": AutoModelForSeq2SeqLM,
    "permuted": AutoModelForCausalLM,
}


@dataclass(frozen=True)
class TokenizerConfig:
    """`model.tokenizer`; conf/model/masked.yaml says what each value means."""

    name_or_path: str | None = None
    train: bool = False
    algorithm: str = "wordpiece"
    special_tokens: str | None = None
    vocab_size: int = 30522
    lowercase: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """A model's YAML; conf/model/masked.yaml says what each value means."""

    family: str = "masked"
    name_or_path: str | None = None
    architecture: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    from_scratch: bool = False
    shape: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    attn_implementation: str = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    freeze: list[str] = field(default_factory=list)
    probes: list[Any] = field(default_factory=list)
    generation: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for name, kind in (("tokenizer", TokenizerConfig), ("lora", LoraConfig)):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, kind(**value))
        if self.from_scratch and not self.architecture:
            raise UserError(
                "model.from_scratch=true needs an architecture", fix="model.architecture=distilbert (a model_type)"
            )
        if not self.from_scratch and not self.name_or_path:
            raise UserError("no model is named", fix="model.name_or_path=FOLDER_OR_HUB_ID, or model.from_scratch=true")
        if isinstance(self.freeze, str):
            object.__setattr__(self, "freeze", [self.freeze])
        if self.freeze and self.lora.r:
            raise UserError(
                "model.freeze and model.lora exclude each other", fix="adapters leave all other weights as they are"
            )
        if self.trust_remote_code and not self.revision:
            raise UserError("model.trust_remote_code=true runs code from the hub", fix="pin it: model.revision=COMMIT")

    @property
    def name(self) -> str:
        """For messages: what is loaded, or what is built."""
        return str(self.architecture if self.from_scratch else self.name_or_path)

    @property
    def hub_options(self) -> dict[str, Any]:
        """What every `from_pretrained` call is given."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


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
    folder, _ = _folders(config)
    return _read(AutoConfig, folder, "config.json", config.hub_options)


def _folders(config: ModelConfig) -> tuple[str, str | None]:
    """Where the model lies, and the adapters to be put on it, if the name is that of a folder of adapters alone."""
    folder = _located(str(config.name_or_path), "model", config.revision)
    base = base_of(folder)
    return (folder, None) if base is None else (_located(base, "model", config.revision), folder)


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


def _check_family(config: ModelConfig, hf_config: PreTrainedConfig) -> None:
    if config.trust_remote_code or model_class(config.family, hf_config):
        return
    families = [family for family in AUTO_CLASSES if model_class(family, hf_config)]
    kind = " and ".join(families) or "no language model that lmft trains"
    fix = f"model={families[0]} model.name_or_path={config.name}" if families else f"model={config.family}, or another"
    raise UserError(f"{hf_config.model_type} is {kind}, not {config.family}", where=config.name, fix=fix)


def load_tokenizer(
    config: ModelConfig,
    texts: Iterable[str],
    text_key: Callable[[], str],
    cache: Path,
) -> PreTrainedTokenizerFast:
    """The tokenizer named by the config, or one trained on `texts` and kept in `cache`. Raises UserError.

    text_key: a name that changes when the texts do.
    """
    wanted = config.tokenizer
    if wanted.train:
        tokenizer = _trained_tokenizer(wanted, texts, text_key, cache)
    elif wanted.name_or_path:
        is_the_models = wanted.name_or_path == config.name_or_path
        revision = config.revision if is_the_models else None
        folder = _located(wanted.name_or_path, "tokenizer", revision)
        tokenizer = _read(AutoTokenizer, folder, "tokenizer.json", config.hub_options if is_the_models else {})
    else:
        raise UserError(
            "the model has no tokenizer", fix="model.tokenizer.name_or_path=FOLDER, or model.tokenizer.train=true"
        )
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{wanted.name_or_path} has no tokenizer.json (a fast tokenizer), which lmft needs")
    return tokenizer


def _trained_tokenizer(
    wanted: TokenizerConfig, texts: Iterable[str], text_key: Callable[[], str], cache: Path
) -> PreTrainedTokenizerFast:
    case = "lower" if wanted.lowercase else "cased"
    name = f"{wanted.algorithm}-{wanted.special_tokens or 'usual'}-{wanted.vocab_size}-{case}-{text_key()}"
    folder = cache / "tokenizers" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            log.info("training a %s vocabulary of %d tokens", wanted.algorithm, wanted.vocab_size)
            tokenizer = train_vocabulary(
                texts, wanted.algorithm, wanted.vocab_size, wanted.lowercase, wanted.special_tokens
            )
            temporary = folder.with_name(folder.name + ".building")
            shutil.rmtree(temporary, ignore_errors=True)
            tokenizer.save_pretrained(temporary)
            temporary.rename(folder)
    return _read(AutoTokenizer, str(folder), "tokenizer.json", {})


def load_model(
    config: ModelConfig, hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, num_new_tokens: int = 0
) -> PreTrainedModel:
    """The model with float32 weights: loaded, or built with random ones for this vocabulary. Raises UserError.

    num_new_tokens: how many tokens the tokenizer has been given besides its own; a loaded embedding grows by as many
    rows as it lacks for them.
    """
    model = (_built if config.from_scratch else _loaded)(config, hf_config, tokenizer, num_new_tokens)
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


def _options(config: ModelConfig) -> dict[str, Any]:
    """Weights are float32, whatever they are stored as; attention is what is fastest."""
    attention = config.attn_implementation
    if attention == "auto" and config.family == "masked" and not torch.cuda.is_available():
        attention = "eager"  # at 128 tokens it beats scaled_dot_product_attention on CPUs
    return {"dtype": torch.float32} | ({} if attention == "auto" else {"attn_implementation": attention})


def _built(
    config: ModelConfig, hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, _num_new_tokens: int
) -> PreTrainedModel:
    fit_to_tokenizer(hf_config, tokenizer)
    try:
        return AUTO_CLASSES[config.family].from_config(hf_config, **_options(config))
    except (ValueError, KeyError) as error:
        raise UserError(f"{config.name} cannot be built: {error}", where="model.config") from error


def _loaded(
    config: ModelConfig, hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, num_new_tokens: int
) -> PreTrainedModel:
    vocab_size = hf_config.get_text_config().vocab_size
    folder, adapters = _folders(config)
    if not adapters and len(tokenizer) - num_new_tokens > vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the model's embedding only {vocab_size}",
            where=f"{config.tokenizer.name_or_path or 'a trained vocabulary'} with {config.name}",
            fix="model.tokenizer.name_or_path of the same model, or model.from_scratch=true",
        )
    options = {**config.hub_options, **_options(config), "output_loading_info": True, "config": hf_config}
    model, info = _read(AUTO_CLASSES[config.family], folder, "weights", options)
    if info["missing_keys"]:
        new = sorted(info["missing_keys"])
        log.warning("not among the weights loaded, so new and random: %s%s", ", ".join(new[:3]), _and_more(new[3:]))
    if len(tokenizer) > vocab_size:
        log.info("the embedding grows from %d to %d tokens", vocab_size, len(tokenizer))
        model.resize_token_embeddings(len(tokenizer))
    return with_stored_adapters(model, adapters) if adapters else model


def _and_more(names: list[str]) -> str:
    return f" and {len(names)} more" if names else ""


def fit_to_tokenizer(hf_config: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    """A new model gets the tokenizer's vocabulary and the ids of its special tokens.

    Other ids of the config are one of these under another name, and stay that: BART's decoder starts with the token
    that ends a text. Where a config does not say what the decoder starts with, that is the padding, as T5 has it.
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


def max_positions(hf_config: PreTrainedConfig) -> int | None:
    """The longest example the model takes, in tokens; None where nothing limits it."""
    positions = getattr(hf_config, "max_position_embeddings", None)
    if positions == -1:  # so XLNet's says
        return None
    if positions is not None and hf_config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl"):
        return positions - hf_config.pad_token_id - 1  # their positions start behind the padding id
    return positions


def _located(name_or_path: str, kind: Literal["model", "tokenizer"], revision: str | None) -> str:
    """The folder to load from, or the id of a repository that the hub is ready to give. Raises UserError."""
    folder, option = Path(name_or_path).expanduser(), hub.OPTIONS[kind]
    if folder.is_dir():
        return str(folder)
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1:
        raise UserError(f"there is no folder {name_or_path}", where=option, fix=f"{option}=FOLDER_OR_HUB_ID")
    return hub.require(name_or_path, kind, revision) or name_or_path


def _read(auto_class: Any, name_or_path: str, what: str, options: dict[str, Any]) -> Any:
    """`from_pretrained`, with its own explanation in one line where the folder does not hold what it should."""
    try:
        return auto_class.from_pretrained(name_or_path, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read the {what} of {name_or_path}", where=reason) from error
