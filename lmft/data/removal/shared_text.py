"""Training documents that share thirteen words in a row with validation documents, or are copies of one.

As in the practice of Brown et al. 2020 (GPT-3, appendix C), what more than ten different training
documents have in common, such as licences and headings, does not count.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import xxhash
from transformers import PreTrainedTokenizerBase

from lmft.data.examples.documents import Documents
from lmft.data.removal.ngrams import NUM_WORDS, Hashes, stretch_hashes, words_of
from lmft.data.store import TokenStore
from lmft.objectives.base import SPECIAL

MOST_DOCUMENTS = 10  # different ones of the training text that may share a stretch
_STRETCH = 1 << 18  # tokens looked through at a time


def sharing(
    train: Documents,
    validations: Sequence[Documents],
    tokenizer: PreTrainedTokenizerBase,
    advance: Callable[[int], object],
) -> np.ndarray:
    """Return which documents of the training text's store share text with validation. [M] bool

    Stretches of thirteen tokens are compared first, by their hashes; where one is found, the words of
    the whole document. A token of validation takes 16 bytes of memory.

    Args:
        train: the training documents.
        validations: the validation documents of every source.
        tokenizer: its tokens.
        advance: called with the number of tokens that were looked through.
    """
    reader = _Reader(tokenizer)
    of_tokens = _united(_token_stretches(validations))
    of_words = _united(reader.stretches(texts.store, number) for texts, number in _each(validations))
    copied = _united(texts.store.hashes[[number]] for texts, number in _each(validations))
    shares = np.zeros(train.store.num_documents, bool)
    grams: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    last = -1  # the latest document that was looked at
    for start, tokens in _stretches(train.store):
        found, _ = of_tokens.found_in(stretch_hashes(tokens))
        numbers = np.searchsorted(train.store.offsets, start + found, side="right") - 1
        for number in np.unique(numbers[train.holds(numbers)]).tolist():
            if number > last:
                _, which = of_words.found_in(np.unique(reader.stretches(train.store, number)))
                grams.append(which)
                owners.append(np.full(len(which), number))
            last = number
        advance(min(len(tokens), _STRETCH))
    if grams:
        rare = _of_few(np.concatenate(grams), np.concatenate(owners), train.store)
        shares[rare] = True
    for first, chosen in train.selection.stretches(train.store):
        hashes = train.store.read("hashes", first, first + len(chosen))
        copies, _ = copied.found_in(hashes)
        shares[first + copies[chosen[copies]]] = True
    return shares


def _of_few(grams: np.ndarray, owners: np.ndarray, store: TokenStore) -> np.ndarray:
    """Return the documents with a stretch that few different documents have.

    Args:
        grams: [n] which stretch.
        owners: [n] a document that has it.
        store: the documents; copies of one count once.
    """
    pairs = np.unique(np.stack([grams.astype(np.uint64), store.hashes[owners]]), axis=1)
    num_documents = np.bincount(pairs[0].astype(np.int64))
    return np.unique(owners[num_documents[grams] <= MOST_DOCUMENTS])


def _united(parts: Iterator[np.ndarray]) -> Hashes:
    """Return the hashes of all parts."""
    return Hashes(np.unique(np.concatenate([np.zeros(0, np.uint64), *parts])))


def _each(validations: Sequence[Documents]) -> Iterator[tuple[Documents, int]]:
    for texts in validations:
        for number in texts.numbers.tolist():
            yield texts, number


def _token_stretches(validations: Sequence[Documents]) -> Iterator[np.ndarray]:
    for texts, number in _each(validations):
        yield stretch_hashes(_ordinary(texts.store, number))


def _stretches(store: TokenStore) -> Iterator[tuple[int, np.ndarray]]:
    """Yield begin and tokens of the stretches of a store; they overlap by 12 tokens."""
    for start in range(0, len(store.tokens), _STRETCH):
        yield start, store.tokens[start : start + _STRETCH + NUM_WORDS - 1]


def _ordinary(store: TokenStore, number: int) -> np.ndarray:
    """Return a document's tokens without special ones."""
    start, stop = store.offsets[number : number + 2].tolist()
    return store.tokens[start:stop][(store.flags[start:stop] & SPECIAL) == 0]


class _Reader:
    """Reads documents as words."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer

    def stretches(self, store: TokenStore, number: int) -> np.ndarray:
        """Return the hashes of a document's thirteen words in a row. [n] uint64"""
        tokens = _ordinary(store, number).tolist()
        words = words_of(str(self.tokenizer.decode(tokens, skip_special_tokens=True)))
        hashes = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in words], np.uint64)
        return stretch_hashes(hashes)
