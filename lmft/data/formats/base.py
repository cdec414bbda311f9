"""What a row is: a text, a conversation, or a pair of texts. Each format turns the rows of a source into
tokens.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from lmft.data.sources.source import Source
from lmft.data.store import StoreWriter, bytes_hash

_BATCH_CHARACTERS = 1 << 18  # text tokenised at a time, while the next is read; its encodings take some 10 MB


class Encoded(NamedTuple):
    """Some documents' tokens."""

    tokens: np.ndarray  # [N] uint32
    flags: np.ndarray  # [N] uint8
    lengths: np.ndarray  # [documents] tokens of each, separators included


Document = TypeVar("Document")


class DocumentEncoder(Protocol[Document]):
    """Turns documents of some kind into ids and flags."""

    dtype: str  # of the ids: <u2 or <u4
    prefix: list[int]  # separators before each document, and before each window of a long one
    suffix: list[int]  # and behind
    has_word_starts: bool  # whether WORD_START is set

    def content(self, document: Document) -> str:
        """What a document says, however it is rendered: what its hash and its bytes are taken of."""
        ...

    def encode(self, documents: list[Document]) -> Encoded:
        """Ids, flags and lengths of these documents."""
        ...


class Format(Protocol):
    """Between a source's rows and a store's tokens."""

    @property
    def encoder(self) -> DocumentEncoder:
        """Turns documents into tokens."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the tokens or flags of some row might."""
        ...

    def documents(
        self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]
    ) -> Iterator[Any]:
        """What the encoder takes, row by row; `cleaned` counts rows dropped and mended, by reason."""
        ...

    def place_of(self, source: Source, number: int) -> str:
        """Where a document stands, for messages; found by reading up to it again."""
        ...

    def warnings(self) -> list[str]:
        """What a user should know of the documents tokenised so far."""
        ...


def id_of(tokenizer: PreTrainedTokenizerFast, name: str) -> int | None:
    """The id of a special token: "mask", "pad", "eos"; None where the tokenizer has none."""
    return getattr(tokenizer, f"{name}_token_id")


def separators(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer's template puts before and after a text."""
    plain, whole = (backend.encode("a", add_special_tokens=added).ids for added in (False, True))
    start = next(i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def batches(
    documents: Iterable[Document], content: Callable[[Document], str] = str
) -> Iterator[list[Document]]:
    """Documents in lists of about a quarter of a million characters."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(content(document))
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def tokenize(
    documents: Iterable[Document], encoder: DocumentEncoder[Document], writer: StoreWriter
) -> Counter[str]:
    """Writes all documents into a store, in constant memory. Returns the counts `documents` and `bytes`."""
    counts: Counter[str] = Counter()

    def write(batch: list[Document], encoded: Encoded) -> None:
        contents = [encoder.content(document).encode("utf-8", "surrogatepass") for document in batch]
        num_bytes = np.array([len(content) for content in contents])
        writer.append(*encoded, np.array([bytes_hash(content) for content in contents], np.uint64), num_bytes)
        counts["documents"] += len(batch)
        counts["bytes"] += int(num_bytes.sum())

    with ThreadPoolExecutor(1) as pool:  # tokenising leaves Python free to read, hash and write meanwhile
        pending = None
        for batch in batches(documents, encoder.content):
            following = batch, pool.submit(encoder.encode, batch)
            if pending:
                write(pending[0], pending[1].result())
            pending = following
        if pending:
            write(pending[0], pending[1].result())
    return counts
