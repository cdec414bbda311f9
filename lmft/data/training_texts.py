"""The texts that a vocabulary is trained on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lmft.data.config import DataConfig
from lmft.data.examples.documents import (
    is_held_out,
)
from lmft.data.formats.pairs import SIDES, pairs
from lmft.data.schedule.noise import key
from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.source import Source, check_holds_texts, held_out_share, open_source
from lmft.data.store import content_hash
from lmft.errors import UserError


@dataclass(frozen=True)
class TrainingTexts:
    """The texts that a vocabulary is trained on: the training documents, without those held out.

    Each iteration reads them again.
    """

    config: DataConfig

    def __iter__(self) -> Iterator[str]:
        for config in _trained_sources(self.config):
            held_out = held_out_share(config)
            for content, texts in self._documents(config):
                if not is_held_out(np.array([content_hash(content)], np.uint64), held_out)[0]:
                    yield from texts

    def _documents(self, config: DataConfig) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield each document's content, which is hashed, and its texts."""
        check_holds_texts(config)
        source = training_source(config)
        if config.format == "pairs":
            return ((pair.content, pair) for _, pair in pairs(source, config.columns, source.tally()))
        texts = documents(source, RowText.from_config(config), source.tally())
        return ((text, [text]) for text in texts)


def training_text_key(config: DataConfig) -> str:
    """Return the cache key of the `TrainingTexts`."""
    keys = [_text_key(source) for source in _trained_sources(config)]
    if len(keys) == 1:
        return keys[0]
    return f"{key(*keys):016x}"


def _text_key(config: DataConfig) -> str:
    source = training_source(config)
    columns = RowText.from_config(config).key
    if config.format != "text":
        columns = str([config.columns[side] for side in SIDES])
    return f"{key(source.fingerprint, columns, str(held_out_share(config))):016x}"


def _trained_sources(config: DataConfig) -> list[DataConfig]:
    """Return the options of each source that is trained on."""
    if not config.sources:
        return [config]
    return [source for name, source in config.by_source().items() if config.weights[name]]


def training_source(config: DataConfig) -> Source:
    """Open the training text. Raises: UserError if none is named."""
    source = open_source(config, "train")
    if source is None:
        raise UserError(
            "no training text is named", fix="data=imdb, or data=files data.train=reviews.txt"
        )
    return source
