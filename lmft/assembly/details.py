"""Break the losses of a run's validations down, and write details.json."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from lmft.assembly.parts import Parts
from lmft.breakdown.classes import NUM_CLASSES, frequency_classes
from lmft.breakdown.details import Context, Text, compared
from lmft.breakdown.measurement import Measurement
from lmft.breakdown.sums import BrokenDown
from lmft.data.ledger import token_counts
from lmft.reporting.changes import lines_of
from lmft.system.token_ids import num_ids

_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


class RunDetails:
    """Breaks the losses of a run's validation texts down."""

    def __init__(self, parts: Parts):
        self.parts = parts

    @property
    def broken_down_by(self) -> list[BrokenDown]:
        """Return what the losses of each validation text are broken down by."""
        documents = self.parts.corpus.documents
        return [
            BrokenDown(len(documents[split]), len(self._classes), self._classes, NUM_CLASSES)
            for split in self.parts.corpus.validations
        ]

    def compare(self, before: Measurement | None, after: Measurement, which: str) -> dict[str, Any]:
        """Return the content of details.json. Arguments as of `lmft.breakdown.details.compared`."""
        details = compared(before, after, self._context, which)
        return details | {"lines": lines_of(details)}

    @cached_property
    def _context(self) -> Context:
        corpus = self.parts.corpus
        weights = self.parts.data.weights
        names = {split: split.partition("/")[2] for split in corpus.validations}
        texts = [
            Text(name, weights.get(name, 1.0), corpus.documents[split]) for split, name in names.items()
        ]
        return Context(texts, self._counts, self._decoded)

    @cached_property
    def _counts(self) -> np.ndarray | None:
        """Count each token in an epoch of the training text; None without that text. [V]"""
        corpus = self.parts.corpus
        size = num_ids(self.parts.tokenizer)
        splits = [split for split in corpus.documents if split.startswith("train/")]
        if not splits:
            return token_counts(corpus.documents["train"], size) if "train" in corpus.examples else None
        passes = {split: corpus.ledger[split].get("passes_per_epoch") for split in splits}
        counts = [
            token_counts(corpus.documents[split], size) * number
            for split, number in passes.items()
            if number is not None
        ]
        return np.sum(counts, axis=0) if counts else None

    @cached_property
    def _classes(self) -> np.ndarray:
        """Number of each token in FREQUENCY_CLASSES. [V]"""
        tokenizer = self.parts.tokenizer
        counts = self._counts
        if counts is None:
            return np.zeros(num_ids(tokenizer), np.uint8)
        added = [token for token in self.parts.vocabulary.ids.values() if not counts[token]]
        return frequency_classes(np.round(counts), {*tokenizer.all_special_ids, *added})

    def _decoded(self, ids: Sequence[int]) -> str:
        """Return the text of ids; of a single one that is not a whole character, its name."""
        tokenizer = self.parts.tokenizer
        text = str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
        if len(ids) == 1 and (_UNREADABLE in text or not text.strip()):
            return str(tokenizer.convert_ids_to_tokens(ids[0]))
        return text
