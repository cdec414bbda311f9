"""The options of `model`, checked as far as possible without building one; imports no torch."""

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from lmft.config.schema import build
from lmft.errors import UserError, did_you_mean

EXPORTS = ("best", "last")


@dataclass(frozen=True)
class LoraConfig:
    """The options of `model.lora`. Raises: UserError for impossible values, and if peft is not
    installed.
    """

    r: int = 0  # rank of the adapters; 0: none
    alpha: int | None = None  # their outputs are scaled by alpha / r; None: 2 * r
    dropout: float = 0.0  # of the adapters' inputs
    # Ends of modules' names, or one regular expression for full names; None: all linear layers.
    target_modules: list[str] | str | None = None
    merge: bool = True  # whether the exported model has the adapters added into its weights
    # Ends of names of modules that are trained in full.
    modules_to_save: list[str] = field(default_factory=list)

    def __post_init__(self):
        if not isinstance(self.r, int) or self.r < 0:
            raise UserError(
                f"model.lora.r={self.r} is no rank", fix="model.lora.r=16, or 0 for no adapters"
            )
        if self.alpha is not None and not (isinstance(self.alpha, int) and self.alpha > 0):
            raise UserError(
                f"model.lora.alpha={self.alpha} is no whole number above 0",
                fix=f"model.lora.alpha={2 * self.r or 32}",
            )
        if not (isinstance(self.dropout, int | float) and 0 <= self.dropout < 1):
            raise UserError(
                f"model.lora.dropout={self.dropout} is no share below 1", fix="model.lora.dropout=0.05"
            )
        if self.target_modules is not None and not self.target_modules:
            raise UserError("model.lora.target_modules names nothing", fix="null, for all linear layers")
        if isinstance(self.modules_to_save, str):
            raise UserError("model.lora.modules_to_save is a list", fix=f"…=[{self.modules_to_save}]")
        if self.r:
            require_peft("model.lora")


@dataclass(frozen=True)
class TokenizerConfig:
    """The options of `model.tokenizer`, documented in conf/model/masked.yaml."""

    name_or_path: str | None = None
    train: bool = False
    algorithm: str = "wordpiece"
    special_tokens: str | None = None
    vocab_size: int = 30522
    lowercase: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """The options of `model`, documented in conf/model/masked.yaml."""

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
    freeze: list[str] | str = field(default_factory=list)
    probes: list[Any] = field(default_factory=list)
    generation: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    export: str = "best"
    module: str | None = None

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
