"""Pairs: a row is a source and a target."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.config import DataConfig
from lmft.data.formats.base import Encoded
from lmft.data.formats.text import Encoder
from lmft.data.sources.cleaning import clean_rows, type_name
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError, did_you_mean
from lmft.objectives.base import ANSWER, Objective
from lmft.objectives.rearranging import ranges

SIDES = ("source", "target")


class Pair(NamedTuple):
    """A source text and the target text that the model learns to write for it."""

    source: str
    target: str

    @property
    def content(self) -> str:
        """The two texts on two lines."""
        return f"{self.source}\n{self.target}"


class PairsFormat:
    """A row is a source and a target, in the columns that `data.columns` names."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerBase, objective: Objective):
        self.columns = config.columns
        self.encoder = PairEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: columns and encoder."""
        return f"pairs {[self.columns[side] for side in SIDES]} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Iterator[Pair]:
        """Yield the pairs."""
        return (pair for _, pair in self.placed(source, tally))

    def placed(self, source: Source, tally: Tally) -> Iterator[tuple[Place, Pair]]:
        """Yield the pairs, each with its place."""
        return pairs(source, self.columns, tally)

    def place_of(self, source: Source, number: int) -> str:
        """Return file and row of a pair, found by reading up to it."""
        place, _ = next(islice(pairs(source, self.columns, source.tally()), number, None))
        return str(place)

    @property
    def counts(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def warnings(self, counts: Mapping[str, int]) -> list[str]:
        """Return no warning: rows that are not pairs are errors."""
        return []


def pairs(
    source: Source,
    columns: Mapping[str, str],
    tally: Tally,
) -> Iterator[tuple[Place, Pair]]:
    """Yield each row's place and pair.

    Args:
        source: where rows are read.
        columns: the user's names of the columns `source` and `target`.
        tally: counts bytes, rows cleaned, by reason, and as `none` rows in which a side has no text.

    Raises: UserError, naming the row, for a column that is missing or not text, and for what cannot be
        read, unless the tally skips such rows.
    """
    return clean_rows(source, lambda row: _pair(row, columns), tally)


def _pair(row: dict, columns: Mapping[str, str]) -> Pair | None:
    names = [columns[side] for side in SIDES]
    for side, name in zip(SIDES, names, strict=True):
        if name not in row:
            what = f"there is no '{name}'{did_you_mean(name, row)}, but {', '.join(row) or 'nothing'}"
            raise UserError(what, fix=f"data.columns.{side}=NAME of the column that holds it")
    values = [row[name] for name in names]
    for name, value in zip(names, values, strict=True):
        if value is not None and not isinstance(value, str):
            fix = "leave the row out, or give its text"
            raise UserError(f"'{name}' holds {type_name(value)}, not text", fix=fix)
    if not all(value and value.strip() for value in values):
        return None
    return Pair(*values)


class PairEncoder:
    """Turns pairs into ids and flags.

    The tokens of the source come first, then those of the target, which are flagged ANSWER. Sources are
    `tokenizer(text)`, targets `tokenizer(text_target=text)`: their separators can differ, as in models
    that translate. Each side also ends with the tokenizer's end-of-text token, if it has one.
    """

    has_word_starts = False

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.source = Encoder(tokenizer, word_starts=False)
        self.target = Encoder(tokenizer, word_starts=False, is_target=True)
        self.backend = self.source.backend
        self.dtype = self.source.dtype
        self.prefix = self.source.prefix
        self.suffix = self.source.closing + self.source.suffix

    @property
    def fingerprint(self) -> str:
        """Cache key of the encoder: it changes if ids or flags of any pair might."""
        return f"{self.source.fingerprint} {self.target.fingerprint}"

    @property
    def template(self) -> dict[str, list[int]]:
        """The separators of the source, and those of the target."""
        return {
            "prefix": self.prefix,
            "suffix": self.suffix,
            "target_prefix": self.target.prefix,
            "target_suffix": self.target.closing + self.target.suffix,
        }

    def content(self, document: Pair) -> str:
        """Return the two texts on two lines."""
        return document.content

    def whole(self, document: Pair) -> str:
        """Return the content: a row is one document."""
        return self.content(document)

    def encode(self, documents: list[Pair]) -> Encoded:
        """Return ids, flags and lengths of these pairs."""
        sources = self.source.encode([pair.source for pair in documents])
        targets = self.target.encode([pair.target for pair in documents])
        lengths = sources.lengths + targets.lengths
        starts = np.cumsum(lengths) - lengths
        tokens = np.empty(int(lengths.sum()), np.uint32)
        flags = np.empty(len(tokens), np.uint8)
        for side, begins, flag in (
            (sources, starts, np.uint8(0)),
            (targets, starts + sources.lengths, ANSWER),
        ):
            places = ranges(begins, side.lengths)
            tokens[places] = side.tokens
            flags[places] = side.flags | flag
        return Encoded(tokens, flags, lengths)
