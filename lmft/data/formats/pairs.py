"""Pairs: a row is a source and a target."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.base import Encoded
from lmft.data.formats.text import Encoder
from lmft.data.sources.cleaning import clean_rows, type_name
from lmft.data.sources.readers import Place
from lmft.data.sources.source import Source
from lmft.errors import UserError, did_you_mean
from lmft.objectives.base import ANSWER

SIDES = ("source", "target")


class Pair(NamedTuple):
    """A text, and what is to be made of it."""

    source: str
    target: str

    @property
    def content(self) -> str:
        """Both."""
        return f"{self.source}\n{self.target}"


class PairsFormat:
    """A row is a source and a target, in the columns that `data.columns` names."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.columns, self.encoder = config.columns, PairEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Columns and encoder."""
        return f"pairs {[self.columns[side] for side in SIDES]} {self.encoder.fingerprint}"

    def documents(
        self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]
    ) -> Iterator[Pair]:
        """The pairs."""
        return (pair for _, pair in pairs(source, self.columns, cleaned, advance))

    def place_of(self, source: Source, number: int) -> str:
        """File and row."""
        place, _ = next(islice(pairs(source, self.columns, Counter()), number, None))
        return str(place)

    def warnings(self) -> list[str]:
        """None: a row that is no pair is refused."""
        return []


def pairs(
    source: Source,
    columns: Mapping[str, str],
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, Pair]]:
    """Each row's place and pair.

    columns: the user's names of `source` and `target`. `cleaned` and `advance` are those of
    `sources.documents`; rows without both values are counted as `none`.

    Raises UserError, naming the row, for a value that is missing, empty or no text, and for what cannot be
    read.
    """
    return clean_rows(source, lambda row: _pair(row, columns), cleaned, advance)


def _pair(row: dict, columns: Mapping[str, str]) -> Pair | None:
    names = [columns[side] for side in SIDES]
    for side, name in zip(SIDES, names, strict=True):
        if name not in row:
            what = f"there is no '{name}'{did_you_mean(name, row)}, but {', '.join(row) or 'nothing'}"
            raise UserError(what, fix=f"data.columns.{side}=NAME of the column that holds it")
    values = [row[name] for name in names]
    if values == [None, None]:
        return None
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            what = "nothing" if value is None else type_name(value)
            raise UserError(f"'{name}' holds {what}, not text", fix="leave the row out, or give its text")
        if not value.strip():
            raise UserError(f"'{name}' is empty", fix="leave the row out, or give its text")
    return Pair(*values)


class PairEncoder:
    """Turns pairs into ids and flags; a `tokenize.DocumentEncoder`.

    The tokens of the source come first, then those of the target, which are ANSWERs. Each side has the
    tokenizer's separators around it, and ends with its end-of-text token, if it has one.
    """

    has_word_starts = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.sides = Encoder(tokenizer, word_starts=False)
        self.dtype, self.prefix = self.sides.dtype, self.sides.prefix
        self.suffix = self.sides.closing + self.sides.suffix

    @property
    def fingerprint(self) -> str:
        """Changes when the ids or flags of some pair might."""
        return self.sides.fingerprint

    def content(self, document: Pair) -> str:
        """Both texts."""
        return document.content

    def encode(self, documents: list[Pair]) -> Encoded:
        """Ids, flags and lengths of these pairs."""
        tokens, flags, lengths = self.sides.encode(list(chain.from_iterable(documents)))
        is_target = np.arange(len(lengths)) % 2 == 1
        flags |= np.where(np.repeat(is_target, lengths), ANSWER, np.uint8(0))
        return Encoded(tokens, flags, lengths.reshape(-1, 2).sum(axis=1))
