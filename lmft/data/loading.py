"""Load a corpus: tokenise its sources, leave copies out, cut examples, mix them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig, Split
from lmft.data.corpus import Corpus
from lmft.data.examples.base import Examples, limited
from lmft.data.examples.cut import Cutter
from lmft.data.examples.documents import Documents
from lmft.data.examples.mixture import MixedExamples, examples_per_epoch
from lmft.data.formats.base import id_of
from lmft.data.ledger import account, unigram_perplexity, unknown_warning
from lmft.data.marks import account_of_marks
from lmft.data.preparation.job import FORMATS
from lmft.data.removal.finding import Finder
from lmft.data.sources.source import Source, held_out_share, open_source
from lmft.data.store import TokenStore
from lmft.data.tokenised import Tokenised, check_weights, token_store
from lmft.data.training_texts import training_source
from lmft.errors import UserError
from lmft.objectives.base import Objective
from lmft.reporting.progress import Counting
from lmft.system.token_ids import num_ids

log = logging.getLogger(__name__)
V = TypeVar("V")


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

    def open(self, config: DataConfig, splits: tuple[Split, ...]) -> Tokenised:
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
        check_weights(config, stores)
        removed = None
        if "train" in stores:
            removed = Finder(config, self.counting).copies(stores["train"])
        share = held_out_share(config) if is_held_out else None
        return Tokenised(config, format, sources, stores, share, removed)

    def cut(
        self,
        opened: Tokenised,
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
