"""From a data YAML to examples: which documents, kept in which store, cut in which way."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.data.cutting import Cutter
from lmft.data.examples import Documents, Examples, is_held_out, split_by_content
from lmft.data.formats import FORMATS, TRAIN_ON, Format
from lmft.data.noise import key
from lmft.data.pairs import SIDES, pairs
from lmft.data.sources import Source, documents, open_source
from lmft.data.store import FORMAT, StoreWriter, TokenStore, content_hash, open_or_build
from lmft.data.tokenize import id_of, tokenize
from lmft.data.unigram import unigram_perplexity
from lmft.errors import UserError, did_you_mean
from lmft.objectives.base import Objective

log = logging.getLogger("lmft")
Split = Literal["train", "validation"]
Counting = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], None]]]
"""A progress display: (description, total, unit) to a function that is told how much more is done."""


COLUMNS = ("messages", "prompt", "completion", *SIDES)
_CHOICES = {
    "format": tuple(FORMATS),
    "train_on": tuple(TRAIN_ON),
    "examples": ("blocks", "lines", "packs"),
    "too_long": ("windows", "cut", "refuse"),
}


@dataclass(frozen=True)
class DataConfig:
    """A data set's YAML; conf/data/files.yaml says what each value means."""

    path: str | None = None
    name: str | None = None
    revision: str | None = None
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train", "validation": "validation"})
    train: str | list[str] | None = None
    validation: str | list[str] | None = None
    validation_fraction: float | None = None
    format: str = "text"
    text_column: str = "text"
    columns: dict[str, str] = field(default_factory=lambda: {name: name for name in COLUMNS})
    chat_template: str | None = None
    train_on: str = "all"
    encoding: str = "utf-8"
    document_separator: str | None = None
    examples: str = "blocks"
    block_size: int = 128
    stride: int | None = None
    max_source_tokens: int = 512
    max_target_tokens: int = 128
    too_long: str = "windows"
    isolate_documents: bool = False
    batch_size: int = 64
    num_workers: int | None = None
    worker_timeout: float = 600
    max_train_examples: int | None = None
    max_validation_examples: int | None = None
    cache_dir: str = "~/.cache/lmft"
    probes: list[Any] = field(default_factory=list)

    def __post_init__(self):
        counts = ("block_size", "batch_size", "stride", "max_train_examples", "max_validation_examples")
        for name in (*counts, "max_source_tokens", "max_target_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name}={value} must be at least 1")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(str(value), known)
                raise UserError(f"data.{name}={value} is unknown{hint}", fix=f"one of: {', '.join(known)}")
        if self.examples == "packs":
            object.__setattr__(self, "isolate_documents", True)
        if self.format != "chat" and self.train_on != "all":
            raise UserError(f"data.train_on={self.train_on} needs conversations", fix="data=chat data.train=FILE.jsonl")
        if self.format == "pairs" and (self.examples != "lines" or self.too_long == "windows"):
            fix = "data=pairs, or data.examples=lines data.too_long=cut"
            raise UserError("pairs stay whole: they make no blocks, no packs and no windows", fix=fix)
        if self.stride is not None and (self.examples != "lines" or self.too_long != "windows"):
            fix = "data.examples=lines data.too_long=windows"
            raise UserError("data.stride is read only where long lines are cut into windows", fix=fix)
        if self.validation_fraction is not None and not 0 <= self.validation_fraction < 1:
            raise UserError(f"data.validation_fraction={self.validation_fraction} is no share between 0 and 1")

    @property
    def cache(self) -> Path:
        """Folder of token stores and trained vocabularies."""
        return Path(self.cache_dir).expanduser()

    @property
    def train_only(self) -> bool:
        """Whether validation is switched off explicitly."""
        return self.validation_fraction == 0

    def source(self, split: Split) -> Source | None:
        """Where this split's rows come from."""
        return open_source(self, split)


@dataclass(frozen=True)
class TrainingTexts:
    """The training documents' texts, without what `validation_fraction` holds out: what a vocabulary is trained on.

    Read anew at each iteration.
    """

    config: DataConfig

    def __iter__(self) -> Iterator[str]:
        held_out = self.config.validation_fraction or 0.0
        for content, texts in self._documents():
            if not is_held_out(np.array([content_hash(content)], np.uint64), held_out)[0]:
                yield from texts

    def _documents(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What each document's hash is taken of, and its texts."""
        config = self.config
        if config.format == "chat":
            fix = "model.tokenizer.name_or_path=FOLDER; `lmft.prepare data=files` trains one on text"
            raise UserError("a vocabulary is trained on texts, not on conversations", "model.tokenizer.train=true", fix)
        source = _training_source(config)
        if config.format == "pairs":
            return ((pair.content, pair) for _, pair in pairs(source, config.columns, Counter()))
        return ((text, [text]) for text in documents(source, config.text_column, Counter()))


def text_key(config: DataConfig) -> str:
    """Changes when the `TrainingTexts` do."""
    source = _training_source(config)
    columns = config.text_column if config.format == "text" else str([config.columns[side] for side in SIDES])
    return f"{key(source.fingerprint, columns, str(config.validation_fraction)):016x}"


def _training_source(config: DataConfig) -> Source:
    source = config.source("train")
    if source is None:
        raise UserError("no training text is named", fix="data=imdb, or data=files data.train=reviews.txt")
    return source


def token_store(config: DataConfig, source: Source, format: Format, counting: Counting) -> TokenStore:
    """The store of a source's documents under a tokenizer: opened if it is there, else built."""
    encoder = format.encoder
    folder = config.cache / "stores" / f"{key(FORMAT, source.fingerprint, format.fingerprint):016x}"

    def build(writer: StoreWriter) -> None:
        cleaned: Counter[str] = Counter()
        with counting(f"tokenising {source.name}", source.size, "bytes") as advance:
            counts = tokenize(format.documents(source, cleaned, advance), encoder, writer)
        for warning in format.warnings():
            log.warning("%s: %s", source.name, warning)
        if not counts["documents"]:
            dropped = ", ".join(f"{count} {reason}" for reason, count in cleaned.items())
            raise UserError(f"there is no text in {source.name}" + (f" (dropped: {dropped})" if dropped else ""))
        writer.finish(
            {
                "source": source.name,
                "prefix": encoder.prefix,
                "suffix": encoder.suffix,
                "word_starts": encoder.has_word_starts,
                **counts,
                "cleaned": dict(cleaned),
            }
        )

    return open_or_build(folder, encoder.dtype, build, log.warning)


@dataclass(frozen=True)
class Corpus:
    """Both splits, as documents and as examples, and what became of each token."""

    documents: dict[Split, Documents]
    examples: dict[Split, Examples]
    ledger: dict[str, dict[str, Any]]

    @property
    def fingerprint(self) -> str:
        """Changes when the training text does, its tokens, or how many examples they make."""
        return f"{self.documents['train'].store.meta['checksums']['tokens.bin']}:{len(self.examples['train'])}"


def load_corpus(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    seed: int,
    counting: Counting,
    splits: tuple[Split, ...] = ("train", "validation"),
) -> Corpus:
    """Tokenises what is not yet tokenised, and cuts the splits into examples. Raises UserError."""
    sources: dict[Split, Source | None] = {split: config.source(split) for split in splits}
    if config.train_only:
        sources.pop("validation", None)
    held_out = "validation" in sources and sources["validation"] is None
    if held_out or "train" in sources:
        sources["train"] = _training_source(config)
    format = FORMATS[config.format](config, tokenizer, objective.needs_word_starts)
    stores: dict[Split, TokenStore] = {
        split: token_store(config, source, format, counting) for split, source in sources.items() if source is not None
    }
    bit = TRAIN_ON[config.train_on]
    texts: dict[Split, Documents] = {split: Documents(store, None, bit) for split, store in stores.items()}
    if held_out:
        texts["train"], texts["validation"] = split_by_content(stores["train"], config.validation_fraction or 0.0, bit)

    examples: dict[Split, Examples] = {}
    for split in splits:
        if split not in texts:
            continue
        source = sources["train"] if split == "validation" and held_out else sources[split]
        assert source is not None
        cutter = Cutter(config, objective, id_of(tokenizer, "pad") or 0, format, source)
        examples[split] = cutter.cut(texts[split], split, seed)
    ledger: dict[str, dict[str, Any]] = {str(split): _account(texts[split], examples[split]) for split in examples}
    for split in examples.keys() & stores.keys():
        ledger[split]["cleaned"] = stores[split].meta["cleaned"]
    if "train" in examples and "validation" in examples:
        unigram = unigram_perplexity(texts["train"], texts["validation"], len(tokenizer))
        ledger["validation"]["unigram_perplexity"] = unigram
    return Corpus(texts, examples, ledger)


def _account(texts: Documents, examples: Examples) -> dict[str, Any]:
    """tokens + tokens_repeated = tokens_in_examples + tokens_dropped."""
    return {
        "documents": len(texts),
        "documents_cut": examples.documents_cut or None,
        "documents_dropped": examples.documents_dropped or None,
        "bytes": texts.num_bytes,
        "tokens": texts.num_tokens,
        "examples": len(examples),
        "tokens_in_examples": examples.num_tokens,
        "tokens_repeated": examples.num_repeated,
        "tokens_dropped": examples.num_dropped,
    }


def count_examples(corpus: Corpus, batch_size: int, num_devices: int) -> None:
    """Raises UserError if an epoch does not fill one batch."""
    num_examples, needed = len(corpus.examples["train"]), batch_size * num_devices
    if num_examples < needed:
        raise UserError(
            f"the training text makes {num_examples} examples, fewer than one batch of {needed}",
            fix=f"data.batch_size={max(1, num_examples // num_devices)}, a smaller data.block_size, or more text",
        )
