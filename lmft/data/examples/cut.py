"""From documents to examples, as the data YAML wants them cut."""

import logging
from dataclasses import dataclass

from lmft.data.config import DataConfig
from lmft.data.examples.base import Examples, Sample
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.data.examples.pairs import PairLines
from lmft.data.examples.windows import Lines, Packs, Windows
from lmft.data.formats.base import Format
from lmft.data.sources.source import Source
from lmft.errors import UserError
from lmft.objectives.base import Objective

log = logging.getLogger("lmft")


@dataclass(frozen=True)
class Cutter:
    """Cuts a split into examples, and says what is left out."""

    config: DataConfig
    objective: Objective
    pad_id: int
    format: Format
    source: Source

    def make_examples(self, texts: Documents, split: str, seed: int) -> Examples:
        """The split's examples, and of these as many as are wanted."""
        config = self.config
        limit = config.max_train_examples if split == "train" else config.max_validation_examples
        size = self.objective.num_raw_tokens(config.block_size)
        examples: Examples
        if config.format == "pairs":
            examples = self._of_pairs(texts, split)
        elif config.examples == "blocks":
            isolated, numbered = config.isolate_documents, self.objective.needs_documents
            examples = Blocks(texts, size, self.pad_id, isolated, numbered)
        else:
            examples = self._of_windows(texts, size, split)
        if not len(examples):
            reasons = ", ".join(f"{count} {reason}" for reason, count in examples.documents_dropped.items())
            found = f"{len(texts)} documents, {texts.num_tokens} tokens" + (
                f"; dropped: {reasons}" if reasons else ""
            )
            fix = "a larger data.block_size" if config.too_long == "cut" else "more text"
            if split == "validation" and config.validation is None:
                fix = "a larger data.validation_fraction=…, or data.validation_fraction=0 to train without"
            raise UserError(f"the {split} text holds no example: {found}", fix=fix)
        return Sample(examples, limit, seed) if limit is not None and limit < len(examples) else examples

    def _of_windows(self, texts: Documents, size: int, split: str) -> Examples:
        config = self.config
        window = size - len(texts.store.prefix) - len(texts.store.suffix)
        if window < 1:
            raise UserError(f"data.block_size={config.block_size} leaves no room between the separators")
        if config.stride is not None and config.stride > window:
            raise UserError(
                f"data.stride={config.stride} leaves tokens out: a window holds {window} tokens of text"
            )
        only_first = config.too_long == "cut"
        if config.examples == "lines":
            examples = Lines(texts, size, self.pad_id, config.stride, only_first)
        else:
            examples = Packs(texts, size, self.pad_id, only_first)
        windows = examples.windows
        self._report(
            texts, windows, f"data.block_size={config.block_size}", "a larger data.block_size", split
        )
        if windows.first_dropped is not None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in windows.documents_dropped.items())
            first = self.format.place_of(self.source, int(texts.numbers[windows.first_dropped]))
            log.warning("%s documents dropped: %s (the first: %s)", split, reasons, first)
        return examples

    def _of_pairs(self, texts: Documents, split: str) -> PairLines:
        limits = self.config.max_source_tokens, self.config.max_target_tokens
        examples = PairLines(texts, *limits, self.pad_id)
        limit = "data.max_source_tokens={} or data.max_target_tokens={}".format(*limits)
        self._report(texts, examples, limit, "larger ones", split)
        return examples

    def _report(self, texts: Documents, cut: Windows | PairLines, limit: str, fix: str, split: str) -> None:
        """Says how many documents are longer than the limit, or refuses them."""
        if len(cut.too_long) and self.config.too_long == "refuse":
            first = cut.too_long[0]
            share = f"{len(cut.too_long)} of {len(texts)} documents"
            place = self.format.place_of(self.source, int(texts.numbers[first]))
            raise UserError(
                f"{share} are longer than {limit}",
                f"the first: {place}, {texts.lengths[first]} tokens",
                f"{fix}, or data.too_long=cut",
            )
        if cut.documents_cut:
            share = f"{cut.documents_cut} of {len(texts)} {split} documents"
            log.warning("%s are longer than %s and were cut", share, limit)
