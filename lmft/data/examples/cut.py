"""Cut documents into examples, as the data config asks."""

import logging
from dataclasses import dataclass

import numpy as np

from lmft.data.config import DataConfig
from lmft.data.examples.base import Examples, limited
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.data.examples.pairs import PairLines
from lmft.data.examples.windows import Lines, Packs, Windows
from lmft.data.formats.base import Format
from lmft.data.sources.source import Source
from lmft.errors import UserError
from lmft.objectives.base import Objective

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cutter:
    """Cuts a split's documents into examples, and reports what is left out."""

    config: DataConfig
    objective: Objective
    pad_id: int
    format: Format
    source: Source

    def make_examples(self, texts: Documents, split: str, seed: int) -> Examples:
        """Cut a split's documents into examples, and sample them if the config limits their number.

        Raises: UserError if there is no example.
        """
        config = self.config
        size = self.objective.num_raw_tokens(config.block_size)
        examples: Examples
        if config.format == "pairs":
            examples = self._cut_pairs(texts, split)
        elif config.examples == "blocks":
            examples = Blocks(
                texts,
                size,
                self.pad_id,
                isolated=config.isolate_documents,
                numbered=self.objective.needs_documents,
            )
        else:
            examples = self._cut_windows(texts, size, split)
        if not len(examples):
            raise self._no_example(texts, examples, split)
        limit = config.max_train_examples if split == "train" else config.max_validation_examples
        return limited(examples, limit, seed)

    def _cut_windows(self, texts: Documents, size: int, split: str) -> Examples:
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
        limit = f"data.block_size={config.block_size}"
        self._report_too_long(texts, windows, limit, "a larger data.block_size", split)
        if windows.first_dropped is not None:
            first = self._place_of(texts, windows.first_dropped)
            log.warning(
                "%s documents dropped: %s (the first: %s)",
                split,
                _reasons(windows.documents_dropped),
                first,
            )
        return examples

    def _cut_pairs(self, texts: Documents, split: str) -> PairLines:
        max_source = self.config.max_source_tokens
        max_target = self.config.max_target_tokens
        examples = PairLines(texts, max_source, max_target, self.pad_id)
        limit = f"data.max_source_tokens={max_source} or data.max_target_tokens={max_target}"
        self._report_too_long(texts, examples, limit, "larger ones", split)
        return examples

    def _report_too_long(
        self, texts: Documents, cut: Windows | PairLines, limit: str, fix: str, split: str
    ) -> None:
        """Warn of documents longer than the limit. Raises: UserError if `data.too_long` refuses them."""
        if len(cut.too_long) and self.config.too_long == "refuse":
            first = int(cut.too_long[0])
            share = f"{len(cut.too_long)} of {len(texts)} documents"
            start, end = texts.spans_at(np.array([first]))
            raise UserError(
                f"{share} are longer than {limit}",
                f"the first: {self._place_of(texts, first)}, {(end - start).item()} tokens",
                f"{fix}, or data.too_long=cut",
            )
        if cut.documents_cut:
            share = f"{cut.documents_cut} of {len(texts)} {split} documents"
            log.warning("%s are longer than %s and were cut", share, limit)

    def _place_of(self, texts: Documents, index: int) -> str:
        return self.format.place_of(self.source, texts.numbers_at(np.array([index])).item())

    def _no_example(self, texts: Documents, examples: Examples, split: str) -> UserError:
        contents = f"{len(texts)} documents, {texts.num_tokens} tokens"
        if examples.documents_dropped:
            contents += f"; dropped: {_reasons(examples.documents_dropped)}"
        if split == "validation" and self.config.validation is None:
            fix = "a larger data.validation_fraction=…, or data.validation_fraction=0 to train without"
        elif self.config.too_long == "cut":
            fix = "a larger data.block_size"
        else:
            fix = "more text"
        return UserError(f"the {split} text holds no example: {contents}", fix=fix)


def _reasons(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
