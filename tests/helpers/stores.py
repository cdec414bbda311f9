"""Small token stores, and what their examples must hold."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, pairwise

import numpy as np
from hypothesis import strategies as st

from lmft.data.store import content_hash
from lmft.objectives.base import ANSWER, SPECIAL, WORD_START, Rows

PAD = 9_999


@dataclass
class Store:
    """A token store in memory: bodies of numbered tokens, between these separators."""

    bodies: list[list[int]]
    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)
    texts: list[str] | None = None
    answers: frozenset[int] = frozenset()  # the tokens that are ANSWER

    def __post_init__(self):
        self.all = [[*self.prefix, *body, *self.suffix] for body in self.bodies]
        self.tokens = np.array([*chain(*self.all)], np.uint16)
        self.flags = np.where(self.tokens < 10, SPECIAL | WORD_START, self.tokens % 3 == 0).astype(np.uint8)
        self.flags[np.isin(self.tokens, [*self.answers])] |= ANSWER
        self.offsets = np.cumsum([0, *map(len, self.all)])
        self.bytes = np.array([4 * len(body) for body in self.bodies], np.uint32)
        self.unknown_tokens = np.zeros(len(self.bodies), np.uint32)
        self.unknown_bytes = np.zeros(len(self.bodies), np.uint32)
        texts = self.texts or [str(body) for body in self.bodies]
        self.hashes = np.array([content_hash(text) for text in texts], np.uint64)
        self.num_documents = len(self.bodies)

    def read(self, name: str, first: int, stop: int) -> np.ndarray:
        return getattr(self, name)[first:stop]


@st.composite
def stores(draw, min_documents: int = 0):
    """Documents of 0 to 12 tokens, each token another number, and up to two separators on each side.

    Some of the tokens are answers, anywhere.
    """
    lengths = draw(st.lists(st.integers(0, 12), min_size=min_documents, max_size=12))
    ends = np.cumsum([10, *lengths])
    bodies = [[*range(start, stop)] for start, stop in pairwise(ends.tolist())]
    chance = np.random.default_rng(draw(st.integers(0, 2**32))).random(ends[-1])
    answers = frozenset(np.flatnonzero(chance < draw(st.sampled_from([0, 0.05, 0.2, 0.8]))).tolist()) - {*range(10)}
    prefix, suffix = range(1, 1 + draw(st.integers(0, 2))), range(5, 5 + draw(st.integers(0, 2)))
    return Store(bodies, [*prefix], [*suffix], answers=answers)


@st.composite
def parts(draw, min_documents: int = 0):
    """A store, and some of its documents (or all of them, unnamed)."""
    store = draw(stores(min_documents))
    chosen = draw(st.none() | st.lists(st.booleans(), min_size=len(store.all), max_size=len(store.all)))
    return store, None if chosen is None else np.flatnonzero(np.array(chosen, bool))


def numbers_of(store: Store, numbers: np.ndarray | None) -> list[int]:
    return [*range(len(store.all))] if numbers is None else numbers.tolist()


def flags_of(tokens: list[int]) -> list[int]:
    return [int(SPECIAL | WORD_START) if token < 10 else int(token % 3 == 0) for token in tokens]


def assert_rows(
    rows: Rows, expected: list[list[int]], numbers: list[int], answers: frozenset[int] | None = None
) -> None:
    """answers: the tokens that may be targets; None: all may."""
    width = max(map(len, expected))
    assert rows.tokens.dtype == np.int64
    assert rows.flags.dtype == np.uint8
    assert rows.tokens.tolist() == [line + [PAD] * (width - len(line)) for line in expected]
    assert rows.lengths.tolist() == [len(line) for line in expected]
    assert rows.numbers.tolist() == numbers
    if answers is None:
        assert rows.trainable is None
    else:
        assert rows.trainable.tolist() == [[token in answers for token in row] for row in rows.tokens.tolist()]
    padding = [int(SPECIAL)]
    special = [[flag & SPECIAL for flag in flags_of(line)] + padding * (width - len(line)) for line in expected]
    assert (rows.flags & SPECIAL).tolist() == special
    for flags, line in zip(rows.flags.tolist(), expected, strict=True):
        assert [f & WORD_START for f, t in zip(flags, line, strict=False) if t >= 10] == [
            f & WORD_START for f, t in zip(flags_of(line), line, strict=True) if t >= 10
        ]


def assert_all_examples(examples, expected: list[list[int]], data, answers: frozenset[int] | None = None) -> None:
    """Alone, all together, and some of them in any order."""
    assert len(examples) == len(expected)
    for number, line in enumerate(expected):
        assert_rows(examples.rows(np.array([number])), [line], [number], answers)
    if expected:
        some = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=6))
        for chosen in (some, [*range(len(expected))]):
            assert_rows(examples.rows(np.array(chosen)), [expected[number] for number in chosen], chosen, answers)


texts = st.lists(st.text(max_size=4), max_size=15)


SHOWN = []


@contextmanager
def counting(description, total, unit):
    """A progress display that writes down what it is told."""
    SHOWN.append([description, total, unit, 0])

    def advance(more):
        SHOWN[-1][3] += more

    yield advance
