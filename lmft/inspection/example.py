"""One example of a batch as plain data: its text, and the sequences that the model reads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lmft.inspection.joining import Token, join
from lmft.inspection.names import TokenNames
from lmft.inspection.origins import Origins
from lmft.inspection.queries import Queries
from lmft.inspection.sight import ranges, sight
from lmft.objectives.base import Rows
from lmft.objectives.following import NOWHERE, STREAMS
from lmft.reporting.roles import (
    CONTEXT,
    DROPPED,
    HIDDEN,
    KEPT,
    MARKER,
    MEANINGS,
    PADDING,
    PREDICTED,
    REPLACED,
)

_OF_TEXT = ("seam", "weight")  # that a token keeps wherever it stands


@dataclass(frozen=True)
class Made:
    """A micro-batch with what it was made of."""

    rows: Rows
    """The examples."""
    documents: np.ndarray
    """Number of each token's document in the store; −1 in padding. [B, T]"""
    arrays: Mapping[str, np.ndarray]
    """The batch, as the objective returned it."""
    queries: Queries
    origins: Origins
    pad_id: int
    is_causal: bool
    """Whether a token of `input_ids` sees only the tokens before it."""


def example(made: Made, row: int, names: TokenNames) -> dict[str, Any]:
    """Return a row of a batch as plain data.

    A token of the result has `id`, `text` and `role`; and where they say something, `special`, `seam`
    (the first token of a further document), `weight` (whether it may be a target), `source` (its place
    in the text), `shown` (of a hidden token: what stands in its place), `stands_for` (of that one: the
    hidden token's place), `target` (the token predicted at this position), `sees` (the columns that this
    prediction sees) and `order` (of the prediction).

    Args:
        made: the batch.
        row: number of the example in the batch.
        names: the texts of the tokens.

    Returns: `number` of the example in its split; `text`, the tokens before the objective; `documents`,
    which documents of the store these are; `streams`, the sequences of the batch; `counts` of the text's
    tokens by role, and of the targets; `traced`, whether the tokens' origins are exact.
    """
    return _ExampleMaker(made, row, names).example()


class _ExampleMaker:
    def __init__(self, made: Made, row: int, names: TokenNames):
        self.made = made
        self.row = row
        self.names = names
        self.length = int(made.rows.lengths[row])
        self.numbers = made.queries.of_row(row)  # [n] of the row's targets
        self.target_sources = made.origins.of["targets"][self.numbers]  # [n]
        self.sources = {
            name: made.origins.of[name][row] for name in STREAMS if name in made.arrays
        }  # [T] of each sequence

    def example(self) -> dict[str, Any]:
        """Return the example; see the function of this name."""
        text = self._tokens(self.made.rows.tokens[self.row])
        for token, role in zip(text, self._roles(), strict=True):
            token["role"] = role
        self._add_seams_and_weights(text)
        streams = [{"name": name, "tokens": self._stream(name, text)} for name in self.sources]
        return {
            "number": int(self.made.rows.numbers[self.row]),
            "text": text,
            "documents": self._documents(),
            "streams": streams,
            "counts": _counts(text) | {"targets": len(self.numbers)},
            "traced": self.made.origins.are_exact,
        }

    def _tokens(self, ids: np.ndarray) -> list[Token]:
        known = ids.tolist()
        tokens = []
        for number, text in zip(known, self.names.texts(known), strict=True):
            token = {"id": number, "text": text}
            if self.names.is_special(number):
                token["special"] = True
            tokens.append(token)
        return tokens

    def _roles(self) -> list[str]:
        """Return the role of each token of the row. [T]"""
        num_columns = self.made.rows.tokens.shape[1]
        columns = np.arange(num_columns)
        is_input = np.isin(columns, self.sources[STREAMS[0]])
        is_target = np.isin(columns, self.target_sources)
        is_kept = np.isin(columns, self._seeing_themselves())
        roles = np.full(num_columns, DROPPED, dtype=object)
        roles[is_input] = CONTEXT
        roles[is_target & ~is_input] = HIDDEN
        roles[is_target & is_input] = PREDICTED
        roles[is_target & is_kept] = KEPT
        roles[self.length :] = PADDING
        return roles.tolist()

    def _seeing_themselves(self) -> np.ndarray:
        """Return the targets that stand at the very position where they are predicted. [n]"""
        columns = self.made.queries.columns[self.numbers]
        there = self.sources[self.made.queries.stream][columns]
        return there[(there == self.target_sources) & (there != NOWHERE)]

    def _add_seams_and_weights(self, text: list[Token]) -> None:
        documents = self.made.rows.documents  # of packs they tell two windows of one document apart
        if documents is None:
            documents = self.made.documents
        for column in _changes(documents[self.row, : self.length]):
            text[column]["seam"] = True
        trainable = self.made.rows.trainable
        if trainable is not None:
            for column in range(self.length):
                text[column]["weight"] = int(trainable[self.row, column])

    def _documents(self) -> list[dict[str, Any]]:
        """Return the documents in the row: number in the store, and columns [start, stop)."""
        documents = self.made.documents[self.row, : self.length]
        edges = [0, *_changes(documents), self.length]
        return [
            {"number": int(documents[start]), "start": start, "stop": stop}
            for start, stop in pairwise(edges)
        ]

    def _stream(self, name: str, text: list[Token]) -> list[Token]:
        """Return the tokens of a sequence of the batch."""
        tokens = self._tokens(self.made.arrays[name][self.row])
        self._add_targets(name, tokens)
        length = self._length(name, tokens)
        for column, (token, source) in enumerate(zip(tokens, self.sources[name].tolist(), strict=True)):
            if source != NOWHERE:
                token["source"] = source
                token["role"] = text[source]["role"]
                token |= {key: text[source][key] for key in _OF_TEXT if key in text[source]}
            elif column >= length:
                token["role"] = PADDING
            else:
                token["role"] = MARKER if "special" in token else REPLACED
        if name == STREAMS[0]:
            join(tokens, text)
        self._add_sight(name, tokens, length)
        return tokens

    def _length(self, name: str, tokens: list[Token]) -> int:
        """Return the tokens of a sequence that are not padding."""
        for column in range(len(tokens), 0, -1):
            token = tokens[column - 1]
            is_from_text = self.sources[name][column - 1] != NOWHERE
            if is_from_text or "target" in token or token["id"] != self.made.pad_id:
                return column
        return 0

    def _add_targets(self, name: str, tokens: list[Token]) -> None:
        queries = self.made.queries
        if name != queries.stream:
            return
        targets = self._tokens(self.made.arrays["targets"][self.numbers])
        columns = queries.columns[self.numbers].tolist()
        for column, target, source in zip(columns, targets, self.target_sources.tolist(), strict=True):
            if source != NOWHERE:
                target["source"] = source
            tokens[column]["target"] = target

    def _add_sight(self, name: str, tokens: list[Token], length: int) -> None:
        """Add what each prediction sees; and in a permutation, the order of predictions."""
        made = self.made
        if name != made.queries.stream:
            return
        seen = [
            sight(made.arrays, made.queries, number, length, made.is_causal)
            for number in self.numbers.tolist()
        ]
        columns = made.queries.columns[self.numbers].tolist()
        for column, columns_seen in zip(columns, seen, strict=True):
            tokens[column]["sees"] = ranges(columns_seen)
        if "perm_mask" not in made.arrays:
            return
        order = np.argsort([columns_seen.sum() for columns_seen in seen], kind="stable")
        for place, number in enumerate(order.tolist(), 1):
            tokens[columns[number]]["order"] = place


def _changes(numbers: np.ndarray) -> list[int]:
    """Return the places whose number is another one than that before. numbers: [T]"""
    return (np.flatnonzero(np.diff(numbers)) + 1).tolist()


def _counts(text: list[Token]) -> dict[str, int]:
    """Return the number of tokens of each role that occurs, in the order of legends."""
    counts = Counter(token["role"] for token in text)
    return {role: counts[role] for role in MEANINGS if counts[role]}
