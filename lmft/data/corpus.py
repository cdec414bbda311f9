"""Corpus: documents and examples of both splits, made from a data config."""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig, Split
from lmft.data.examples.base import Examples, limited
from lmft.data.examples.cut import Cutter
from lmft.data.examples.documents import (
    TRAIN_ON,
    Documents,
    share_that_splits,
    split_by_content,
)
from lmft.data.examples.mixture import MixedExamples, examples_per_epoch
from lmft.data.examples.selection import Selection
from lmft.data.formats.base import Format, id_of
from lmft.data.ledger import account, unigram_perplexity, unknown_warning
from lmft.data.marks import account_of_marks
from lmft.data.preparation.job import FORMATS, Job
from lmft.data.preparation.parts import tokenise_source, tokenise_together
from lmft.data.removal.finding import Finder
from lmft.data.removal.removed import Removed
from lmft.data.schedule.noise import key
from lmft.data.sources.source import Source, held_out_share, open_source
from lmft.data.store import FORMAT, StoreWriter, TokenStore, open_or_build
from lmft.data.training_texts import training_source
from lmft.errors import UserError
from lmft.objectives.base import Objective
from lmft.reporting.progress import Counting
from lmft.system.token_ids import num_ids

log = logging.getLogger(__name__)
V = TypeVar("V")


def token_store(
    config: DataConfig,
    source: Source,
    format: Format,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    counting: Counting,
) -> TokenStore:
    """Open the store of a source's tokenised documents; build it if it is missing."""
    folder = config.cache / "stores" / f"{key(FORMAT, source.fingerprint, format.fingerprint):016x}"
    parts = folder.with_name(folder.name + ".parts")
    doing = f"tokenising {source.name}"

    @cache
    def job() -> Job:
        return Job(source.shards(), config, tokenizer, objective)

    def build(writer: StoreWriter) -> None:
        with counting(doing, source.size, "bytes") as advance:
            tokenise_source(source, job(), format, parts, writer, advance)

    if config.prepare_job is not None and not folder.exists():
        with counting(doing, source.size, "bytes") as advance:
            tokenise_together(job(), format, parts, folder, advance)
    store = open_or_build(folder, format.encoder.dtype, build, log.warning)
    shutil.rmtree(parts, ignore_errors=True)  # of this build, or of one that was killed at its end
    for note in store.meta.get("notes", []):
        log.info("%s", note)
    for warning in store.meta.get("warnings", []):
        log.warning("%s", warning)
    return store


@dataclass(frozen=True)
class Corpus:
    """The documents, the examples and the ledger of each split.

    A split is "train" or "validation". A mixture has "train/NAME" and "validation/NAME" for each of its
    sources, and its examples of training are mixed in "train".
    """

    documents: dict[str, Documents]
    examples: dict[str, Examples]
    ledger: dict[str, dict[str, Any]]
    trained_validations: frozenset[str] = frozenset()
    """Of the splits that validation measures those that are the examples of training."""

    @property
    def mixture(self) -> MixedExamples | None:
        """The mixed examples of training; None if there is one source."""
        examples = self.examples.get("train")
        return examples if isinstance(examples, MixedExamples) else None

    @property
    def validations(self) -> list[str]:
        """The splits that validation measures."""
        return [split for split in self.examples if split.startswith("validation")]

    @property
    def measured_sources(self) -> list[str]:
        """The sources of a mixture that validation measures one by one."""
        return [name for split in self.validations if (name := split.partition("/")[2])]

    def of_validations(self) -> "Corpus":
        """Return the corpus without the examples of training."""
        examples = {split: self.examples[split] for split in self.validations}
        ledger = {split: self.ledger[split] for split in self.validations}
        return replace(self, examples=examples, ledger=ledger)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training text: of its tokens, and of the number of examples."""
        if self.mixture is None:
            return self._fingerprint_of("train")
        counts = dict(zip(self.mixture.sources, self.mixture.counts, strict=True))
        texts = {name: self._fingerprint_of(f"train/{name}") for name in counts}
        return " ".join(f"{name}={count}:{texts[name]}" for name, count in counts.items())

    def _fingerprint_of(self, split: str) -> str:
        documents = self.documents[split]
        checksums = documents.store.meta["checksums"]
        removed = documents.selection.removed
        left_out = "" if removed is None else f"-{removed.checksum}"
        return f"{checksums['tokens.bin']}{left_out}:{len(self.examples[split])}"


@dataclass(frozen=True)
class _Opened:
    """The tokenised text of one source."""

    config: DataConfig
    format: Format
    sources: dict[Split, Source | None]
    stores: dict[Split, TokenStore]
    held_out: float | None
    """Share of the training text that is validation; None: validation has its own text, or none."""
    removed: Removed | None
    """Documents of the training text that are left out."""

    @cached_property
    def texts(self) -> dict[Split, Documents]:
        """The documents of each split. Raises: UserError if one of two sides has none."""
        bit = TRAIN_ON[self.config.train_on]
        if self.held_out is not None:
            store = self.stores["train"]
            train, validation = split_by_content(store, self.held_out, bit, self.removed)
            _check_split(train, validation, self.held_out)
            return {"train": train, "validation": validation}
        removed = {"train": Selection(removed=self.removed)}
        stores = self.stores.items()
        return {split: Documents(store, None, bit, removed.get(split)) for split, store in stores}

    @property
    def validations(self) -> list[Documents]:
        """The validation text, if there is one."""
        return [texts for split, texts in self.texts.items() if split == "validation"]


@dataclass(frozen=True)
class _Loader:
    """Loads the text of one source."""

    tokenizer: PreTrainedTokenizerFast
    objective: Objective
    seed: int
    counting: Counting

    def load(self, config: DataConfig, splits: tuple[Split, ...]) -> Corpus:
        """Tokenise the splits if they are not in the cache, and cut them into examples.

        Args:
            config: the options of the one source.
            splits: the splits whose examples are needed.

        Raises: UserError.
        """
        if config.validate_on_train and "validation" in splits:
            return self._validated_on_train(config, splits)
        return self._load(config, splits)

    def _validated_on_train(self, config: DataConfig, splits: tuple[Split, ...]) -> Corpus:
        """Return a corpus whose validation is the examples of its training."""
        if config.validation:
            message = "data.validation=%s is not read: data.validate_on_train=true measures the training"
            log.warning(message, config.validation)
        holds_out = bool(config.validation_fraction) and not config.validation
        loaded = self._load(config, ("train", "validation") if holds_out else ("train",))
        trained = loaded.documents["train"]
        examples = loaded.examples["train"]
        measured = limited(examples, config.max_validation_examples, self.seed)
        ledger = self._ledgers(
            {"train": trained, "validation": trained}, {"train": examples, "validation": measured}, ""
        )
        of_splits = {"train": examples, "validation": measured}
        return Corpus(
            documents=dict.fromkeys(splits, trained),
            examples={split: of_splits[split] for split in splits},
            ledger={split: {**loaded.ledger["train"], **ledger[split]} for split in splits},
            trained_validations=frozenset({"validation"}),
        )

    def _load(self, config: DataConfig, splits: tuple[Split, ...]) -> Corpus:
        opened = self.open(config, splits)
        return self.cut(opened, splits, "", opened.validations)

    def open(self, config: DataConfig, splits: tuple[Split, ...]) -> "_Opened":
        """Tokenise the texts that the examples of these splits need, and find the copies in them."""
        if config.decontaminate and "train" in splits:
            splits = ("train", "validation")
        sources: dict[Split, Source | None] = {split: open_source(config, split) for split in splits}
        if config.train_only:
            sources.pop("validation", None)
        is_held_out = "validation" in sources and sources["validation"] is None
        if is_held_out or "train" in sources:
            sources["train"] = training_source(config)
        format = FORMATS[config.format](config, self.tokenizer, self.objective)
        made_by = (format, self.tokenizer, self.objective, self.counting)
        stores: dict[Split, TokenStore] = {
            split: token_store(config, source, *made_by)
            for split, source in sources.items()
            if source is not None
        }
        _check_weights(config, stores)
        removed = None
        if "train" in stores:
            removed = Finder(config, self.counting).copies(stores["train"])
        share = held_out_share(config) if is_held_out else None
        return _Opened(config, format, sources, stores, share, removed)

    def cut(
        self,
        opened: "_Opened",
        splits: tuple[Split, ...],
        suffix: str,
        validations: Sequence[Documents],
    ) -> Corpus:
        """Cut the texts of a source into examples, without the documents that are left out.

        validations: the validation text of every source.
        """
        config = opened.config
        texts = opened.texts
        if config.decontaminate and "train" in splits:
            removed = Finder(config, self.counting).shared(texts["train"], validations, self.tokenizer)
            texts = replace(opened, removed=removed).texts
        examples: dict[Split, Examples] = {}
        for split in splits:
            if split not in texts:
                continue
            source = opened.sources[split] or opened.sources["train"]
            assert source is not None
            pad_id = id_of(self.tokenizer, "pad") or 0
            cutter = Cutter(config, self.objective, pad_id, opened.format, source)
            examples[split] = cutter.make_examples(texts[split], split, self.seed)
        ledger = self._ledgers(texts, examples, suffix)
        for split in examples.keys() & opened.stores.keys():
            ledger[split]["cleaned"] = opened.stores[split].meta["cleaned"]
        if opened.held_out is not None and "validation" in ledger:
            ledger["validation"]["held_out"] = opened.held_out
        return Corpus(_named(texts, suffix), _named(examples, suffix), _named(ledger, suffix))

    def _ledgers(
        self, texts: Mapping[Split, Documents], examples: Mapping[Split, Examples], suffix: str
    ) -> dict[Split, dict[str, Any]]:
        """Return the ledger of each split that has examples."""
        ledgers: dict[Split, dict[str, Any]] = {
            split: self._ledger(split + suffix, texts[split], examples[split]) for split in examples
        }
        if "train" in examples and "validation" in examples:
            unigram = unigram_perplexity(texts["train"], texts["validation"], num_ids(self.tokenizer))
            ledgers["validation"]["unigram_perplexity"] = unigram
        return ledgers

    def _ledger(self, split: str, texts: Documents, examples: Examples) -> dict[str, Any]:
        """Return a split's ledger, and warn of what the vocabulary cannot express."""
        ledger = account(texts, examples) | account_of_marks(self.objective, examples, split)
        if warning := unknown_warning(ledger, texts.store.meta["unknown_text"]):
            log.warning("%s: %s", split, warning)
        return ledger


def _named(by_split: Mapping[Split, V], suffix: str) -> dict[str, V]:
    return {split + suffix: value for split, value in by_split.items()}


def load_corpus(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
    seed: int,
    counting: Counting,
    splits: tuple[Split, ...] = ("train", "validation"),
) -> Corpus:
    """Tokenise the splits if they are not in the cache, and cut them into examples. Raises: UserError.

    `seed` is that of samples of the examples, and `counting` shows progress.
    """
    loader = _Loader(tokenizer, objective, seed, counting)
    _check_compared(config, splits)
    if not config.sources:
        return loader.load(config, splits)
    opened = []
    for name, source in config.by_source().items():
        needed: tuple[Split, ...] = splits
        if not config.weights[name]:
            needed = ("validation",) if "validation" in splits else ()
        opened.append((name, needed, loader.open(source, needed)))
    validations = [texts for _, _, source in opened for texts in source.validations]
    corpora = [loader.cut(source, needed, f"/{name}", validations) for name, needed, source in opened]
    together = Corpus(
        documents=_joined(corpus.documents for corpus in corpora),
        examples=_joined(corpus.examples for corpus in corpora),
        ledger=_joined(corpus.ledger for corpus in corpora),
    )
    measured = together.measured_sources
    if measured and not any(config.weights[name] for name in measured):
        what = f"val/loss would measure only {', '.join(measured)}, which is not trained on"
        fix = "validation text of a source with a weight above 0: validation_fraction: 0.05"
        raise UserError(what, "data.sources", fix)
    if "train" in splits:
        _mix(together, config, id_of(tokenizer, "pad") or 0)
    return together


def _joined(parts: Iterable[dict[str, V]]) -> dict[str, V]:
    """Return the entries of several dicts, those of training first."""
    entries = {split: value for part in parts for split, value in part.items()}
    return dict(sorted(entries.items(), key=lambda entry: not entry[0].startswith("train")))


def _mix(corpus: Corpus, config: DataConfig, pad_id: int) -> None:
    """Add the mixed examples of training to a corpus, and each source's share to its ledger."""
    weights = {name: weight for name, weight in config.weights.items() if weight}
    sources = {name: corpus.examples[f"train/{name}"] for name in weights}
    counts = examples_per_epoch(sources, weights, config.epoch)
    mixed = MixedExamples(sources, [*counts.values()], pad_id, config.fixed_noise)
    corpus.examples["train"] = mixed
    for name, count in counts.items():
        corpus.ledger[f"train/{name}"] |= {
            "examples_per_epoch": count,
            "share": count / sum(counts.values()),
            "passes_per_epoch": count / len(sources[name]),
        }


def _check_compared(config: DataConfig, splits: tuple[Split, ...]) -> None:
    """Raise UserError if training text is to be compared with validation text that there is none of."""
    sources = [*config.by_source().values()] or [config]
    compares = "train" in splits and any(source.decontaminate for source in sources)
    if compares and all(source.train_only for source in sources):
        what = "data.decontaminate=true compares with validation text, and there is none"
        fix = "data.decontaminate=false, or data.validation_fraction=0.05"
        raise UserError(what, "data.validation_fraction=0", fix)


def _check_weights(config: DataConfig, stores: Mapping[Split, TokenStore]) -> None:
    """Raise UserError if the loss counts answers that their rows exclude from it."""
    if config.train_on != "all":
        return
    for store in stores.values():
        count = store.meta.get("weightless_answers", 0)
        if count:
            what = f"answers of {store.meta['source']} with weight 0: {count}, and all are trained on"
            raise UserError(what, "data.train_on=all", "data.train_on=assistant")


def _check_split(train: Documents, validation: Documents, share: float) -> None:
    """Raise UserError if holding documents out leaves one side without any."""
    if len(train) and len(validation):
        return
    num_documents = len(train) + len(validation)
    if num_documents == 1:
        what = "the text is one document, and whole documents are held out"
    elif not len(validation):
        what = (
            f"none of the {num_documents} documents is selected for validation: too few for a share of "
            f"{share:g}"
        )
    else:
        what = f"all {num_documents} documents are selected for validation, and none is left to train on"
    possible = share_that_splits(train.store.hashes)
    if possible:
        other = f"data.validation_fraction={possible:g}"
    else:
        other = "data.document_separator='\\n\\n' to cut it"
    fix = f"data.validation=FILE, {other}, or data.validation_fraction=0 to train without validation"
    raise UserError(what, f"{train.store.meta['source']}, data.validation_fraction={share:g}", fix)
