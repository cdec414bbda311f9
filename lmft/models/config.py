"""The options of `model`, checked as far as possible without building one; imports no torch."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from lmft.config.schema import build
from lmft.errors import UserError, did_you_mean

EXPORTS = ("best", "last")
# Options of `model.tokenizer` that are read only if a vocabulary is trained.
TRAINING_OPTIONS = ("algorithm", "special_tokens", "vocab_size", "lowercase", "strip_accents")


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

    def __post_init__(self):
        if self.r < 0:
            raise UserError(
                f"model.lora.r={self.r} is no rank", fix="model.lora.r=16, or 0 for no adapters"
            )
        if self.alpha is not None and self.alpha < 1:
            raise UserError(
                f"model.lora.alpha={self.alpha} is no whole number above 0",
                fix=f"model.lora.alpha={2 * self.r or 32}",
            )
        if not 0 <= self.dropout < 1:
            raise UserError(
                f"model.lora.dropout={self.dropout} is no share below 1", fix="model.lora.dropout=0.05"
            )
        if self.target_modules is not None and not self.target_modules:
            raise UserError("model.lora.target_modules names nothing", fix="null, for all linear layers")
        if self.r:
            require_peft("model.lora")


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


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The options of `model`, explained in conf/model/_base.yaml."""

    family: str
    name_or_path: str | None
    architecture: str | None
    revision: str | None
    trust_remote_code: bool
    from_scratch: bool
    shape: dict[str, Any]
    config: dict[str, Any]
    attn_implementation: str
    compile: bool
    gradient_checkpointing: bool
    tokenizer: TokenizerConfig
    lora: LoraConfig
    freeze: list[str] | str
    probes: list[Any]
    generation: dict[str, Any]
    recipe: dict[str, Any]
    export: str
    module: str | None

    def __post_init__(self):
        for name, kind in (("tokenizer", TokenizerConfig), ("lora", LoraConfig)):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, build(kind, value, f"model.{name}"))
        if self.export not in EXPORTS:
            hint = did_you_mean(self.export, EXPORTS)
            raise UserError(
                f"model.export={self.export} is unknown{hint}", fix=f"one of: {', '.join(EXPORTS)}"
            )
        if self.from_scratch and not self.architecture:
            raise UserError(
                "model.from_scratch=true needs an architecture",
                fix="model.architecture=distilbert (a model_type)",
            )
        if not self.from_scratch and not self.name_or_path:
            raise UserError(
                "no model is named",
                fix="model.name_or_path=FOLDER_OR_HUB_ID, or model.from_scratch=true",
            )
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

    @property
    def name(self) -> str:
        """The architecture that is built, or the folder or hub id that is loaded, for messages."""
        return str(self.architecture if self.from_scratch else self.name_or_path)

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
    if find_spec("peft") is None:
        raise UserError(
            "adapters need peft, which is not installed",
            where=where,
            fix='pip install "peft>=0.21,<0.22"',
        )
