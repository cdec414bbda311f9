"""Corpus: the documents, the examples and the ledger of each split."""

from dataclasses import dataclass, replace
from typing import Any

from lmft.data.examples.base import Examples
from lmft.data.examples.documents import Documents
from lmft.data.examples.mixture import MixedExamples


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
