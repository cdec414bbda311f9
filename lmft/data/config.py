"""DataConfig: the values of a data set's YAML, checked without reading text. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lmft.errors import UserError, did_you_mean

Split = Literal["train", "validation"]
COLUMNS = ("messages", "prompt", "completion", "source", "target")  # of rows of chats and pairs
DEFAULT_VALIDATION_FRACTION = 0.05  # of local files that come without validation text
_CHOICES = {
    "format": ("text", "chat", "pairs"),
    "train_on": ("all", "assistant", "completion", "last_turn"),
    "examples": ("blocks", "lines", "packs"),
    "too_long": ("windows", "cut", "refuse"),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The options of `data`; conf/data/_base.yaml explains each and states its default."""

    path: str | None
    name: str | None
    revision: str | None
    splits: dict[str, str]
    train: str | list[str] | None
    validation: str | list[str] | None
    validation_fraction: float | None
    format: str
    text_column: str
    columns: dict[str, str]
    chat_template: str | None
    train_on: str
    encoding: str
    document_separator: str | None
    examples: str
    block_size: int
    stride: int | None
    max_source_tokens: int
    max_target_tokens: int
    too_long: str
    isolate_documents: bool
    batch_size: int
    num_workers: int | None
    worker_timeout: float
    max_train_examples: int | None
    max_validation_examples: int | None
    cache_dir: str
    probes: list[Any]

    def __post_init__(self):
        self._check_values()
        self._check_examples()
        self._check_validation()
        if self.examples == "packs":
            object.__setattr__(self, "isolate_documents", True)

    def _check_values(self) -> None:
        """Raise UserError if a value alone is wrong."""
        counts = ("block_size", "batch_size", "stride", "max_train_examples", "max_validation_examples")
        for name in (*counts, "max_source_tokens", "max_target_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name}={value} must be at least 1")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UserError(
                    f"data.{name}={value} is unknown{hint}", fix=f"one of: {', '.join(known)}"
                )

    def _check_examples(self) -> None:
        """Raise UserError if format and examples do not fit together."""
        if self.format != "pairs" and self.block_size < 2:
            what = "data.block_size=1: an example needs two tokens, one to predict and one to see"
            raise UserError(what, fix="data.block_size=128")
        if self.format != "chat" and self.train_on != "all":
            what = f"data.train_on={self.train_on} needs conversations"
            raise UserError(what, fix="data=chat data.train=FILE.jsonl")
        if self.format == "pairs" and (self.examples != "lines" or self.too_long == "windows"):
            what = "pairs stay whole: they make no blocks, no packs and no windows"
            raise UserError(what, fix="data=pairs, or data.examples=lines data.too_long=cut")
        if self.stride is not None and (self.examples != "lines" or self.too_long != "windows"):
            what = "data.stride is read only where long lines are cut into windows"
            raise UserError(what, fix="data.examples=lines data.too_long=windows")

    def _check_validation(self) -> None:
        """Raise UserError if the validation text is not clear."""
        if self.validation_fraction is not None and not 0 <= self.validation_fraction < 1:
            what = (
                f"data.validation_fraction={self.validation_fraction} is not a share from 0 to below 1"
            )
            usual = f"data.validation_fraction={DEFAULT_VALIDATION_FRACTION}"
            fix = f"{usual}, or 0 to train without validation"
            raise UserError(what, fix=fix)
        if self.validation and self.train_only:
            what = "data.validation names a text, data.validation_fraction=0 asks for no validation"
            raise UserError(what, fix="leave one of them out")

    @property
    def cache(self) -> Path:
        """Folder of token stores and trained vocabularies."""
        return Path(self.cache_dir).expanduser()

    @property
    def train_only(self) -> bool:
        """True if validation is switched off explicitly."""
        return self.validation_fraction == 0
