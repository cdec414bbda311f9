"""Unknown text: what a vocabulary cannot express, counted while documents are tokenised."""

import json
from collections import Counter
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from lmft.data.formats.backend import FastBackend, PythonBackend
from lmft.data.formats.pieces import pieces_of

MOST_DISTINCT = 10_000  # unknown texts that are counted one by one, for messages
_NUM_EXAMPLES = 8


class Unknown(NamedTuple):
    """Counts of several documents."""

    tokens: np.ndarray  # [documents] tokens that stand for unknown text
    num_bytes: np.ndarray  # [documents] UTF-8 bytes of the unknown text


def most_frequent(texts: Counter[str]) -> list[str]:
    """Return the most frequent texts, for messages."""
    return [text for text, _ in texts.most_common(_NUM_EXAMPLES)]


class UnknownText:
    """Counts the text of documents that a vocabulary has no tokens for.

    Most tokenizers put one unknown token in its place. A BPE model without an unknown token, and without
    tokens for bytes, leaves the text out; then the characters that are not tokens are counted.
    """

    def __init__(self, backend: FastBackend | PythonBackend):
        self.backend = backend
        self.unknown_id = backend.unknown_id
        self._leaves_out = False
        if isinstance(backend, FastBackend) and self.unknown_id is None:
            self._leaves_out = _leaves_out(backend.fast)
        self._texts: Counter[str] = Counter()

    @property
    def counts(self) -> dict[str, int]:
        """Unknown texts, of those met first, and how often they were met."""
        return dict(self._texts)

    @property
    def examples(self) -> list[str]:
        """The most frequent unknown texts, of those met first."""
        return most_frequent(self._texts)

    def count(self, documents: list[str], tokens: np.ndarray, lengths: np.ndarray) -> Unknown:
        """Count the unknown text of documents.

        Args:
            documents: their texts.
            tokens: [N] the tokens of all of them.
            lengths: [documents] tokens of each.
        """
        num_bytes = np.zeros(len(documents), np.int64)
        is_unknown = np.zeros(len(tokens), np.int64)
        if self.unknown_id is not None:
            is_unknown = (tokens == self.unknown_id).astype(np.int64)
        total = np.concatenate([[0], np.cumsum(is_unknown)])
        ends = np.cumsum(lengths)
        num_unknown = total[ends] - total[ends - lengths]
        # The offsets of tokens take longer than the tokens, so only these documents are encoded again.
        numbers = range(len(documents)) if self._leaves_out else np.flatnonzero(num_unknown)
        for number in numbers:
            for piece in pieces_of(documents[number]):
                texts = self._unknown_texts(piece)
                num_bytes[number] += sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
                if len(self._texts) < MOST_DISTINCT:
                    self._texts.update(texts)
        return Unknown(num_unknown, num_bytes)

    def _unknown_texts(self, text: str) -> list[str]:
        if isinstance(self.backend, PythonBackend):  # it gives no offsets, so whole words are counted
            words = text.split()
            ids = self.backend.ids(words) if words else []
            return [word for word, its in zip(words, ids, strict=True) if self.unknown_id in its]
        fast = self.backend.fast
        if self._leaves_out:
            if fast.normalizer is not None:
                text = fast.normalizer.normalize_str(text)
            return [
                character
                for character in text
                if not character.isspace() and fast.token_to_id(character) is None
            ]
        (encoding,) = self.backend.encodings([text])
        pairs = zip(encoding.ids, encoding.offsets, strict=True)
        return [text[start:end] for token, (start, end) in pairs if token == self.unknown_id]


def _leaves_out(backend: Tokenizer) -> bool:
    """Return whether a model without an unknown token lacks tokens for some bytes."""
    spec = json.loads(backend.to_str())
    steps = json.dumps([spec["normalizer"], spec["pre_tokenizer"]])
    return "ByteLevel" not in steps and not spec["model"].get("byte_fallback", False)
