"""DataConfig: the values of a data set's YAML, checked without reading text. Imports nothing heavy."""

import math
import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from lmft.config.schema import build
from lmft.errors import UserError, did_you_mean
from lmft.system.urls import path_of, storage_of

Split = Literal["train", "validation"]
CHAT_COLUMNS = (  # of rows of chats
    *("messages", "prompt", "completion", "instruction", "input", "output"),
    *("history", "system", "tools"),
)
COLUMNS = (*CHAT_COLUMNS, "source", "target")  # of rows of chats and pairs
# Values of data.format whose rows are conversations; chat: which of them is recognised row by row.
CHAT_FORMATS = ("chat", "messages", "sharegpt", "prompt_completion", "alpaca", "marked_text")
SHAREGPT_COLUMN = "conversations"  # read where there is no column for messages
DEFAULT_VALIDATION_FRACTION = 0.05  # of local files that come without validation text
FILE_FORMATS = ("txt", "json", "csv", "tsv", "parquet", "arrow")
NO_CHARACTER = "none"  # of a quote or an escape: no character is special
_CHOICES = {
    "format": ("text", *CHAT_FORMATS, "pairs"),
    "train_on": ("all", "assistant", "completion", "last_turn"),
    "turns": ("together", "each"),
    "examples": ("blocks", "lines", "packs"),
    "too_long": ("windows", "cut", "refuse"),
    "file_format": (None, *FILE_FORMATS),
    "encoding_errors": ("strict", "replace", "ignore"),
    "on_error": ("stop", "skip"),
    "deduplicate": (None, "exact", "near"),
}


_SHARED = (  # options that the sources of a mixture share, since they are those of every example
    *("examples", "block_size", "stride", "max_source_tokens", "max_target_tokens", "too_long"),
    *("isolate_documents", "batch_size", "num_workers", "worker_timeout", "cache_dir", "chat_template"),
    *("prepare_processes", "prepare_job"),
    *("chat_template_kwargs", "probes", "probe_conversations", "sources", "epoch"),
    *("source_language", "target_language"),
    *("validate_on_train", "fixed_noise"),
)


@dataclass(frozen=True, kw_only=True)
class CsvConfig:
    """The options of `data.csv`; null: found from the beginning of each file."""

    delimiter: str | None
    header: bool | None
    quote: str | None
    escape: str | None

    def __post_init__(self):
        if self.delimiter == "\\t":
            object.__setattr__(self, "delimiter", "\t")
        for name in ("delimiter", "quote", "escape"):
            value = getattr(self, name)
            if value is None or len(value) == 1 or (value == NO_CHARACTER and name != "delimiter"):
                continue
            fix = f"data.csv.{name}='\\t' or another character"
            if name != "delimiter":
                fix = f"data.csv.{name}='\"', another character, or none"
            raise UserError(f"data.csv.{name}={value} is not one character", fix=fix)

    @property
    def given(self) -> dict[str, Any]:
        """The options that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class JoinConfig:
    """The options of `data.join`."""

    columns: str
    lists: str


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
    text_column: str | list[str]
    join: JoinConfig
    columns: dict[str, str]
    source_language: str | None
    target_language: str | None
    instruction_template: str | None
    response_template: str | None
    chat_template: str | None
    chat_template_kwargs: dict[str, Any]
    train_on: str
    turns: str
    file_format: str | None
    encoding: str
    encoding_errors: str
    document_separator: str | None
    csv: CsvConfig
    on_error: str
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
    validate_on_train: bool
    fixed_noise: bool
    max_train_examples: int | None
    max_validation_examples: int | None
    cache_dir: str
    probes: list[Any]
    probe_conversations: int
    streaming: bool
    max_documents: int | None
    sources: dict[str, Any]
    epoch: str | int | None
    prepare_processes: int | None
    prepare_job: int | None
    deduplicate: str | None
    near_similarity: float
    decontaminate: bool

    def __post_init__(self):
        for name, kind in (("csv", CsvConfig), ("join", JoinConfig)):
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, build(kind, value, f"data.{name}"))
        self._check_sources()
        self._check_values()
        self._check_examples()
        self._check_validation()
        self._check_streaming()
        if self.examples == "packs":
            object.__setattr__(self, "isolate_documents", True)

    def _check_values(self) -> None:
        """Raise UserError if a value alone is wrong."""
        counts = ("block_size", "batch_size", "stride", "max_train_examples", "max_validation_examples")
        counts += ("max_documents", "max_source_tokens", "max_target_tokens", "prepare_processes")
        for name in counts:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name}={value} must be at least 1")
        for name in ("probe_conversations", "num_workers", "worker_timeout", "prepare_job"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"data.{name}={value} must not be negative")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(str(value), filter(None, known))
                choices = ", ".join("null" if choice is None else choice for choice in known)
                raise UserError(f"data.{name}={value} is unknown{hint}", fix=f"one of: {choices}")
        if not 0 < self.near_similarity <= 1:
            what = f"data.near_similarity={self.near_similarity} is not a share from above 0 to 1"
            raise UserError(what, fix="data.near_similarity=0.8")
        if not self.text_columns:
            raise UserError("data.text_column names no column", fix="data.text_column=NAME")
        self._check_places()

    def _check_places(self) -> None:
        """Raise UserError if a folder that has to be on a disk is on other storage."""
        if storage := storage_of(self.cache_dir):
            what = f"token stores are read by memory map, and {storage}:// is no disk"
            fix = "data.cache_dir=FOLDER of a disk; data.train=URL copies text into it"
            raise UserError(what, f"data.cache_dir={self.cache_dir}", fix)
        if self.path and storage_of(self.path):
            what = "data.path is a folder or file of this machine, or a data set of the hub"
            fix = f"data.train='{self.path}' data.validation=URL, files on other storage"
            raise UserError(what, f"data.path={self.path}", fix)

    def _check_examples(self) -> None:
        """Raise UserError if format and examples do not fit together."""
        if self.format != "pairs" and self.block_size < 2:
            what = "data.block_size=1: an example needs two tokens, one to predict and one to see"
            raise UserError(what, fix="data.block_size=128")
        if self.kind != "chat" and self.train_on != "all":
            what = f"data.train_on={self.train_on} needs conversations"
            raise UserError(what, fix="data=chat data.train=FILE.jsonl")
        if self.format != "chat" and (self.turns == "each" or self.chat_template_kwargs):
            name = "data.turns=each" if self.turns == "each" else "data.chat_template_kwargs"
            raise UserError(f"{name} needs conversations", fix="data=chat data.train=FILE.jsonl")
        if self.turns == "each" and self.train_on not in ("assistant", "completion"):
            what = f"data.train_on={self.train_on} does not go with data.turns=each, an example for"
            what += " each answer"
            fix = "data.train_on=assistant, or data.turns=together"
            raise UserError(what, fix=fix)
        if self.format == "pairs" and (self.examples != "lines" or self.too_long == "windows"):
            what = "pairs are not cut: they cannot be blocks, packs or windows"
            raise UserError(what, fix="data=pairs, or data.examples=lines data.too_long=cut")
        if self.target_language is not None and self.format != "pairs":
            what = f"data.target_language={self.target_language} is read only for pairs"
            raise UserError(what, f"data.format={self.format}", "data=pairs objective=pairs")
        if self.format == "marked_text" and not self.response_template:
            what = "data.format=marked_text needs the text that stands before each answer"
            raise UserError(what, fix="data.response_template='### Assistant:'")
        if self.source_language is not None and self.kind == "chat":
            what = f"data.source_language={self.source_language} is not read for chats"
            raise UserError(what, fix="data.source_language=null")
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
        if self.decontaminate and self.validate_on_train:
            what = "data.decontaminate=true would remove all documents that validation measures"
            fix = "data.decontaminate=false, or data.validate_on_train=false"
            raise UserError(what, "data.validate_on_train=true", fix)
        if self.validation and self.train_only:
            what = "data.validation names a text, data.validation_fraction=0 asks for no validation"
            raise UserError(what, fix="leave one of them out")

    def _check_streaming(self) -> None:
        """Raise UserError if the rows to stream are not limited, or are none of the hub."""
        if self.streaming and self.max_documents is None:
            what = "data.streaming=true needs the number of documents to take"
            raise UserError(what, fix="data.max_documents=100000")
        if self.streaming and not self.sources and (self.train or not self.path):
            what = "data.streaming=true reads a data set of the hub, and data.path names none"
            raise UserError(what, fix="data.path=HUB_ID, or leave data.streaming out")
        if self.max_documents is not None and not self.streaming:
            what = "data.max_documents is read only with data.streaming=true"
            fix = "data.max_train_examples limits the examples of any text"
            raise UserError(what, f"data.max_documents={self.max_documents}", fix)

    def _check_sources(self) -> None:
        """Raise UserError if the sources of a mixture are not clear."""
        if not self.sources:
            if self.epoch is not None:
                what = "data.epoch is read only for a mixture of sources"
                raise UserError(what, f"data.epoch={self.epoch}", "data.sources={…}, or leave it out")
            return
        for name in ("path", "train", "validation", "max_train_examples", "max_validation_examples"):
            if getattr(self, name) is not None:
                what = f"data.{name} and data.sources both name text"
                raise UserError(what, fix=f"data.{name}=null, or data.sources.NAME.{name}=…")
        for name, options in self.sources.items():
            _check_source(str(name), options)
        if not any(self.weights.values()):
            raise UserError("no source has a weight above 0", "data.sources", "weight: 1")
        if isinstance(self.epoch, str) and not self.weights.get(self.epoch):
            trained = [name for name, weight in self.weights.items() if weight]
            what = f"data.epoch={self.epoch} names no source that is trained on"
            raise UserError(what, fix=f"one of: {', '.join(trained)}; or a number of tokens")
        if isinstance(self.epoch, int) and self.epoch < 1:
            raise UserError(f"data.epoch={self.epoch} must be at least 1 token")
        for name, source in self.by_source().items():
            if not self.weights[name] and source.train_only:
                what = f"data.sources.{name} is neither trained on nor measured"
                fix = "a weight above 0, or another validation_fraction than 0"
                raise UserError(what, "weight: 0, validation_fraction: 0", fix)
        if self.validate_on_train:
            what = "data.validate_on_train=true measures the examples of one text, not of a mixture"
            raise UserError(what, "data.sources", "data.train=FILE, or data.validate_on_train=false")

    @property
    def weights(self) -> dict[str, float]:
        """Source -> its share of the examples of training, not yet divided by their sum."""
        return {str(name): options.get("weight", 1) for name, options in self.sources.items()}

    def by_source(self) -> dict[str, "DataConfig"]:
        """Return the options of each source of a mixture. Raises: UserError."""
        configs = {}
        for name, options in self.sources.items():
            own = {option: value for option, value in options.items() if option != "weight"}
            values = {field.name: getattr(self, field.name) for field in fields(self)}
            values |= {"sources": {}, "epoch": None, **_with_inherited(own, values)}
            configs[str(name)] = build(DataConfig, values, f"data.sources.{name}")
        return configs

    @property
    def kind(self) -> str:
        """The kind of a row: text, chat (of any format of conversations) or pairs."""
        return "chat" if self.format in CHAT_FORMATS else self.format

    @property
    def formats(self) -> set[str]:
        """The kinds of the sources of a mixture, or of the one text."""
        return {source.kind for source in self.by_source().values()} or {self.kind}

    @property
    def text_columns(self) -> list[str]:
        """The columns that make a text, in rows that are texts."""
        if isinstance(self.text_column, str):
            return [self.text_column]
        return self.text_column

    @property
    def column_names(self) -> list[str]:
        """The columns that the format looks for in a row."""
        if self.format in ("text", "marked_text"):
            return self.text_columns
        if self.kind == "chat":
            return [*(self.columns.get(name, name) for name in CHAT_COLUMNS), SHAREGPT_COLUMN]
        return list(self.columns.values())

    @property
    def cache(self) -> Path:
        """Folder of token stores and trained vocabularies."""
        return Path(path_of(self.cache_dir)).expanduser()

    @property
    def train_only(self) -> bool:
        """True if validation is switched off explicitly."""
        return self.validation_fraction == 0 and not self.validate_on_train


def _check_source(name: str, options: Any) -> None:
    """Raise UserError if the options of a source of a mixture are not a source's."""
    where = f"data.sources.{name}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UserError(f"'{name}' cannot name a source", where, "letters, digits, _ and -")
    if not isinstance(options, dict):
        fix = f"data.sources={{{name}: {{train: FILE, weight: 1}}}}"
        raise UserError(f"a source is a group of options, not {options!r}", where, fix)
    for shared in _SHARED:
        if shared in options:
            what = f"data.{shared} is the same for all sources"
            raise UserError(what, f"{where}.{shared}", f"data.{shared}={options[shared]}")
    weight = options.get("weight", 1)
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not 0 <= weight < math.inf:
        what = f"weight={weight} must be a number, 0 or more"
        raise UserError(what, where, "weight: 0.3, or 0 to measure its validation text only")


def _with_inherited(options: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Return a source's options; a group of options that it gives in part is completed by `data`'s."""
    completed = dict(options)
    for name, value in options.items():
        if isinstance(value, dict) and is_dataclass(shared.get(name)):
            completed[name] = {**vars(shared[name]), **value}
    return completed
