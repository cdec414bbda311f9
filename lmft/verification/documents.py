"""The first documents of the training text as they are read, and where their tokens are in the store."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np

from lmft.assembly.parts import Parts
from lmft.data.preparation.job import FORMATS
from lmft.data.store import TokenStore
from lmft.data.training_texts import training_source
from lmft.objectives.base import ANSWER

_LONGEST = 20_000  # characters of a document that is looked at


@dataclass(frozen=True)
class Read:
    """A document, and its tokens in the store."""

    kind: str  # text | chat | pairs
    document: Any  # a text, a Pair or a Conversation
    name: str  # for messages
    tokens: np.ndarray  # [n]
    is_answer: np.ndarray  # [n] bool

    @property
    def texts(self) -> list[str]:
        """Its text; of a pair both texts."""
        if self.kind == "pairs":
            return [self.document.source, self.document.target]
        return [self.document if self.kind == "text" else self.document.text]


def first_documents(parts: Parts, count: int) -> Iterator[Read]:
    """Yield the first documents of each source of the training text, without very long ones."""
    for name, config in (parts.data.by_source() or {"": parts.data}).items():
        split = f"train/{name}" if name else "train"
        if split not in parts.corpus.documents:
            continue
        store = parts.corpus.documents[split].store
        source = training_source(config)
        read = FORMATS[config.format](config, parts.tokenizer, parts.objective)
        documents = enumerate(read.documents(source, source.tally()))
        for number, document in islice(documents, count):
            begin = int(store.offsets[number])
            end = int(store.offsets[number + 1])
            found = Read(
                config.kind,
                document,
                f"{store.meta['source']}, document {number + 1}",
                np.asarray(store.tokens[begin:end], np.int64),
                (store.flags[begin:end] & ANSWER) != 0,
            )
            if sum(map(len, found.texts)) <= _LONGEST:
                yield found


def why_no_documents(parts: Parts, tokens: np.ndarray, bounds: list[int]) -> str | None:
    """Return why a row is not made of whole documents, or parts of them, between its bounds.

    The documents are looked up in the store by their tokens.

    Args:
        parts: the training.
        tokens: [L] a row.
        bounds: where its documents begin, and its end.

    Returns: None if they are documents.
    """
    stores = [
        documents.store
        for name, documents in parts.corpus.documents.items()
        if name.partition("/")[0] == "train"
    ]
    for begin, end in pairwise(bounds):
        if not any(_is_within_document(store, tokens[begin:end]) for store in stores):
            return f"its tokens {begin} to {end} are not of one document"
    for (begin, _), (_, end) in pairwise(pairwise(bounds)):
        if any(_is_within_document(store, tokens[begin:end]) for store in stores):
            return f"its tokens {begin} to {end} are of one document, and are kept apart"
    return None


def _is_within_document(store: TokenStore, tokens: np.ndarray) -> bool:
    """Return whether tokens stand in one document, perhaps with the separators of a window around."""
    prefix = store.prefix
    suffix = store.suffix
    candidates = [tokens]
    begin = len(prefix)
    end = len(tokens) - len(suffix)
    is_window = tokens[:begin].tolist() == prefix and tokens[end:].tolist() == suffix
    if is_window and begin < end:
        candidates.append(tokens[begin:end])
    return any(_is_in_a_document(store, candidate) for candidate in candidates)


def _is_in_a_document(store: TokenStore, tokens: np.ndarray) -> bool:
    """Return whether these tokens stand one after the other in a document of the store."""
    wanted = tokens.astype(store.tokens.dtype).tobytes()
    size = store.tokens.dtype.itemsize
    with (store.folder / "tokens.bin").open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with content:
        place = content.find(wanted)
        while place >= 0:
            first, remainder = divmod(place, size)
            documents = np.searchsorted(store.offsets, [first, first + len(tokens) - 1], side="right")
            if not remainder and documents[0] == documents[1]:
                return True
            place = content.find(wanted, place + 1)
    return False
