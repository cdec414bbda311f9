"""The options of `model`, checked as far as possible without building one; imports no torch."""

import re
from dataclasses import dataclass
from typing import Any

from lmft.config.extras import install_command, is_installed
from lmft.config.schema import build
from lmft.errors import UserError, did_you_mean

EXPORTS = ("best", "last")
# The number formats of exported weights, and torch's names of them.
EXPORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_INITS = ("kaiming", "gaussian", "orthogonal")  # of adapters, beside PiSSA's
# Options of `model.tokenizer` that are read only if a vocabulary is trained.
TRAINING_OPTIONS = ("algorithm", "special_tokens", "vocab_size", "lowercase", "strip_accents")

AUTO_WORDS = "auto:"  # begins a value of `model.tokenizer.add_tokens` that is a number of words


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The options of `model.lora`, explained in conf/model/_base.yaml.

    Raises: UserError for impossible values, and if peft is not installed.
    """

    r: int
    alpha: int | None
    dropout: float
    target_modules: list[str] | str | None
    merge: bool
    modules_to_save: list[str]
    use_dora: bool
    use_rslora: bool
    init_lora_weights: str

    def __post_init__(self):
        if self.r < 0:
            raise UserError(
                f"model.lora.r={self.r} must be 0 or more", fix="model.lora.r=16, or 0 for no adapters"
            )
        if self.alpha is not None and self.alpha < 1:
            raise UserError(
                f"model.lora.alpha={self.alpha} must be a whole number above 0",
                fix=f"model.lora.alpha={2 * self.r or 32}",
            )
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"model.lora.dropout={self.dropout} must be a share from 0 to below 1",
                fix="model.lora.dropout=0.05",
            )
        if self.target_modules is not None and not self.target_modules:
            raise UserError("model.lora.target_modules is empty", fix="null, for all linear layers")
        self._check_init()
        if self.r:
            require_peft("model.lora")

    def _check_init(self) -> None:
        """Raise UserError if the adapters' first values are unknown, or cannot be exported."""
        init = self.init_lora_weights
        option = f"model.lora.init_lora_weights={init}"
        is_pissa = re.fullmatch(r"pissa(_niter_[1-9]\d*)?", init)
        if init not in _INITS and not is_pissa:
            what = f"{option} is unknown{did_you_mean(init, (*_INITS, 'pissa'))}"
            raise UserError(what, fix=f"one of: {', '.join(_INITS)}, pissa, pissa_niter_16")
        if is_pissa and not self.merge:
            what = (
                f"{option} changes the base's weights, and adapters alone would be loaded without that"
            )
            raise UserError(what, "model.lora.merge=false", "model.lora.merge=true")
        if init == "orthogonal" and self.r % 2:
            what = f"{option} needs an even rank, not {self.r}"
            raise UserError(what, fix=f"model.lora.r={self.r + 1}")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The options of `model.tokenizer`, explained in conf/model/_base.yaml."""

    name_or_path: str | None
    train: bool
    algorithm: str
    special_tokens: str | None
    vocab_size: int
    lowercase: bool
    strip_accents: bool
    replace: bool
    add_tokens: list[str] | str
    warm_up_steps: int

    def __post_init__(self):
        if isinstance(self.add_tokens, str) and self.add_tokens.startswith("auto"):
            num_auto_words(self.add_tokens)
        if self.add_tokens and self.train:
            raise UserError(
                "a vocabulary that is trained takes its words from the text",
                "model.tokenizer.add_tokens with model.tokenizer.train=true",
                "leave one of them out",
            )
        if self.warm_up_steps < 0:
            raise UserError(
                f"model.tokenizer.warm_up_steps={self.warm_up_steps} must be a number of steps"
            )


def num_auto_words(value: str) -> int:
    """Return the number of words in `auto:N`. Raises: UserError."""
    number = value.removeprefix(AUTO_WORDS)
    if not number.isdecimal() or not int(number):
        raise UserError(
            f"model.tokenizer.add_tokens={value} does not give a number of words",
            fix="model.tokenizer.add_tokens=auto:500",
        )
    return int(number)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The options of `model`, explained in conf/model/_base.yaml."""

    family: str
    name_or_path: str | None
    architecture: str | None
    revision: str | None
    trust_remote_code: bool
    from_scratch: bool
    shape_from: str | None
    shape: dict[str, Any]
    config: dict[str, Any]
    attn_implementation: str
    compile: bool | str
    cuda_graphs: bool
    gradient_checkpointing: bool
    tokenizer: TokenizerConfig
    lora: LoraConfig
    freeze: list[str] | str
    probes: list[Any]
    generation: dict[str, Any]
    recipe: dict[str, Any]
    export: str
    export_dtype: str | None
    license: str | None
    module: str | None

    def __post_init__(self):
        for name, kind in (("tokenizer", TokenizerConfig), ("lora", LoraConfig)):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, build(kind, value, f"model.{name}"))
        self._check_choices()
        if named := {"dtype", "torch_dtype"}.intersection(self.config):
            raise UserError(
                "lmft does not take the number format of training and export from the model's config",
                f"model.config.{min(named)}",
                "model.export_dtype=bf16 exports in bfloat16; trainer.precision is that of training",
            )
        if self.from_scratch and not self.architecture and not self.shape_from:
            raise UserError(
                "model.from_scratch=true needs an architecture",
                fix="model.architecture=distilbert (a model_type), or model.shape_from=FOLDER",
            )
        if not self.from_scratch and not self.name_or_path:
            raise UserError(
                "no model is named",
                fix="model.name_or_path=FOLDER_OR_HUB_ID, or model.from_scratch=true",
            )
        self._check_vocabulary()
        if isinstance(self.freeze, str):
            object.__setattr__(self, "freeze", [self.freeze])
        if self.freeze and self.lora.r:
            raise UserError(
                "model.freeze and model.lora exclude each other",
                fix="adapters leave all other weights as they are",
            )
        if self.trust_remote_code and not re.fullmatch("[0-9a-f]{40}", str(self.revision)):
            what = (
                "model.trust_remote_code=true runs a repository's code, "
                "which a branch or tag does not pin"
            )
            raise UserError(
                what, f"model.revision={self.revision}", "model.revision=COMMIT, all 40 digits of it"
            )

    def _check_choices(self) -> None:
        """Raise UserError for a value that is none of its option's."""
        if isinstance(self.compile, str) and self.compile != "auto":
            what = f"model.compile={self.compile} is unknown"
            raise UserError(what, fix="one of: true, false, auto")
        if self.export not in EXPORTS:
            hint = did_you_mean(self.export, EXPORTS)
            raise UserError(
                f"model.export={self.export} is unknown{hint}", fix=f"one of: {', '.join(EXPORTS)}"
            )
        if self.export_dtype is not None and self.export_dtype not in EXPORT_DTYPES:
            hint = did_you_mean(self.export_dtype, EXPORT_DTYPES)
            raise UserError(
                f"model.export_dtype={self.export_dtype} is unknown{hint}",
                fix=f"one of: {', '.join(EXPORT_DTYPES)}, null (that of the base model)",
            )

    def _check_vocabulary(self) -> None:
        """Raise UserError if the vocabulary's options do not fit the weights."""
        options = self.tokenizer
        if options.train and not self.from_scratch and not options.replace:
            raise UserError(
                "a newly trained vocabulary does not fit the pretrained weights",
                f"model.tokenizer.train=true with {self.name_or_path}",
                "model.from_scratch=true; or model.tokenizer.replace=true, which keeps the rows of "
                "tokens that both vocabularies know",
            )
        if self.from_scratch and (options.replace or options.warm_up_steps):
            option = "replace" if options.replace else "warm_up_steps"
            raise UserError(
                "a model with random weights has no embeddings to keep",
                f"model.tokenizer.{option}",
                "leave it out",
            )
        if options.replace and self.lora.r and not self.lora.merge:
            raise UserError(
                "adapters do not contain the embeddings of a replaced vocabulary",
                "model.tokenizer.replace=true with model.lora.merge=false",
                "model.lora.merge=true",
            )

    @property
    def name(self) -> str:
        """The model that is built, or the folder or hub id that is loaded, for messages."""
        if self.from_scratch:
            return str(self.shape_from or self.architecture)
        return str(self.name_or_path)

    @property
    def hub_options(self) -> dict[str, Any]:
        """Arguments of each `from_pretrained` call; `revision` pins code in another repository too."""
        options: dict[str, Any] = {
            "revision": self.revision,
            "trust_remote_code": self.trust_remote_code,
        }
        if self.trust_remote_code:
            options["code_revision"] = self.revision
        return options


def require_peft(where: str) -> None:
    """Raise UserError unless peft is installed."""
    if not is_installed("peft"):
        what = "adapters need peft, which is not installed"
        raise UserError(what, where, install_command("peft"))
