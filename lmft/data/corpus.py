"""From a data YAML to examples: which documents, kept in which store, cut in which way."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig, Split
from lmft.data.examples.base import Examples
from lmft.data.examples.cut import Cutter
from lmft.data.examples.documents import TRAIN_ON, Documents, is_held_out, share_that_splits, split_by_content
from lmft.data.formats.base import Format, id_of, tokenize
from lmft.data.formats.chat import ChatFormat
from lmft.data.formats.pairs import SIDES, PairsFormat, pairs
from lmft.data.formats.text import TextFormat
from lmft.data.ledger import account, unigram_perplexity
from lmft.data.schedule.noise import key
from lmft.data.sources.cleaning import documents
from lmft.data.sources.source import Source, held_out_share, open_source
from lmft.data.store import FORMAT, StoreWriter, TokenStore, content_hash, open_or_build
from lmft.errors import UserError
from lmft.objectives.base import Objective

log = logging.getLogger("lmft")
FORMATS: dict[str, Callable[[DataConfig, PreTrainedTokenizerFast, bool], Format]] = {
    "text": TextFormat,
    "chat": ChatFormat,
    "pairs": PairsFormat,
}
Counting = Callable[[str, int | None, str], AbstractContextManager[Callable[[int], None]]]
"""A progress display: (description, total, unit) to a function that is told how much more is done."""


@dataclass(frozen=True)
class TrainingTexts:
    """The training documents' texts, without what `validation_fraction` holds out: what a vocabulary is
    trained on.

    Read anew at each iteration.
    """

    config: DataConfig

    def __iter__(self) -> Iterator[str]:
        held_out = held_out_share(self.config)
        for content, texts in self._documents():
            if not is_held_out(np.array([content_hash(content)], np.uint64), held_out)[0]:
                yield from texts

    def _documents(self) -> Iterator[tuple[str, Sequence[str]]]:
        """What each document's hash is taken of, and its texts."""
        config = self.config
        if config.format == "chat":
            fix = "model.tokenizer.name_or_path=FOLDER; `lmft.prepare data=files` trains one on text"
            raise UserError(
                "a vocabulary is trained on texts, not on conversations", "model.tokenizer.train=true", fix
            )
        source = _training_source(config)
        if config.format == "pairs":
            return ((pair.content, pair) for _, pair in pairs(source, config.columns, Counter()))
        return ((text, [text]) for text in documents(source, config.text_column, Counter()))


def training_text_key(config: DataConfig) -> str:
    """Changes when the `TrainingTexts` do."""
    source = _training_source(config)
    columns = config.text_column if config.format == "text" else str([config.columns[side] for side in SIDES])
    return f"{key(source.fingerprint, columns, str(held_out_share(config))):016x}"


def _training_source(config: DataConfig) -> Source:
    source = open_source(config, "train")
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
            raise UserError(
                f"there is no text in {source.name}" + (f" (dropped: {dropped})" if dropped else "")
            )
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
        return (
            f"{self.documents['train'].store.meta['checksums']['tokens.bin']}:{len(self.examples['train'])}"
        )


def load_corpus(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    seed: int,
    counting: Counting,
    splits: tuple[Split, ...] = ("train", "validation"),
) -> Corpus:
    """Tokenises what is not yet tokenised, and cuts the splits into examples. Raises UserError."""
    sources: dict[Split, Source | None] = {split: open_source(config, split) for split in splits}
    if config.train_only:
        sources.pop("validation", None)
    held_out = "validation" in sources and sources["validation"] is None
    if held_out or "train" in sources:
        sources["train"] = _training_source(config)
    format = FORMATS[config.format](config, tokenizer, objective.needs_word_starts)
    stores: dict[Split, TokenStore] = {
        split: token_store(config, source, format, counting)
        for split, source in sources.items()
        if source is not None
    }
    bit = TRAIN_ON[config.train_on]
    texts: dict[Split, Documents] = {split: Documents(store, None, bit) for split, store in stores.items()}
    if held_out:
        share = held_out_share(config)
        texts["train"], texts["validation"] = split_by_content(stores["train"], share, bit)
        _check_split(texts["train"], texts["validation"], share)

    examples: dict[Split, Examples] = {}
    for split in splits:
        if split not in texts:
            continue
        source = sources["train"] if split == "validation" and held_out else sources[split]
        assert source is not None
        cutter = Cutter(config, objective, id_of(tokenizer, "pad") or 0, format, source)
        examples[split] = cutter.make_examples(texts[split], split, seed)
    ledger: dict[str, dict[str, Any]] = {
        str(split): account(texts[split], examples[split]) for split in examples
    }
    for split in examples.keys() & stores.keys():
        ledger[split]["cleaned"] = stores[split].meta["cleaned"]
    if held_out and "validation" in ledger:
        ledger["validation"]["held_out"] = held_out_share(config)
    if "train" in examples and "validation" in examples:
        unigram = unigram_perplexity(texts["train"], texts["validation"], len(tokenizer))
        ledger["validation"]["unigram_perplexity"] = unigram
    return Corpus(texts, examples, ledger)


def _check_split(train: Documents, validation: Documents, share: float) -> None:
    """Raises UserError where holding documents out leaves one side without any."""
    if len(train) and len(validation):
        return
    store, option = train.store, f"data.validation_fraction={share:g}"
    num_documents = len(train) + len(validation)
    enough = share_that_splits(store.hashes)
    other = (
        f"data.validation_fraction={enough:g}, " if enough else "data.document_separator='\\n\\n' to cut it, "
    )
    fix = f"data.validation=FILE, {other}or data.validation_fraction=0 to train without validation"
    if not len(validation):
        what = f"no document of the {num_documents} falls to validation: too few for a share of {share:g}"
    else:
        what = f"all documents ({num_documents}) fall to validation, and none is left to train on"
    raise UserError(what, f"{store.meta['source']}, {option}", fix)
