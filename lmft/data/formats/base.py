"""Formats: a row is a text, a conversation or a pair of texts; its format turns it into tokens."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.formats.backend import FastBackend, PythonBackend
from lmft.data.formats.unknown import UnknownText
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.data.store import StoreWriter, bytes_hash, content_hash
from lmft.system.token_ids import num_ids

_BATCH_CHARACTERS = 1 << 18  # of the text tokenised at a time; its encodings take about 10 MB


class Encoded(NamedTuple):
    """The tokens of several documents."""

    tokens: np.ndarray  # [N] uint32
    flags: np.ndarray  # [N] uint8
    lengths: np.ndarray  # [documents] tokens of each, separators included


Document = TypeVar("Document")


class DocumentEncoder(Protocol[Document]):
    """Turns documents of one format into ids and flags."""

    dtype: str  # of the ids: <u2 or <u4
    prefix: list[int]  # separators before each document, and before each window of a long one
    suffix: list[int]  # separators after them
    has_word_starts: bool  # the flag WORD_START is set

    @property
    def template(self) -> dict[str, list[int]]:
        """The separators, as a store keeps them: prefix and suffix, and those of a pair's target."""
        ...

    @property
    def backend(self) -> FastBackend | PythonBackend:
        """The tokenizer."""
        ...

    def content(self, document: Document) -> str:
        """Return a document's text without templates, whose bytes are counted."""
        ...

    def whole(self, document: Document) -> str:
        """Return the text of the row that a document is of, whose hash holds the row out: the content,
        unless a row makes several documents.
        """
        ...

    def encode(self, documents: list[Document]) -> Encoded:
        """Return ids, flags and lengths of these documents."""
        ...


class Format(Protocol):
    """Turns a source's rows into documents, and names them in messages."""

    @property
    def encoder(self) -> DocumentEncoder:
        """The encoder of the documents."""
        ...

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: it changes if tokens or flags of any row might."""
        ...

    def documents(self, source: Source, tally: Tally) -> Iterator[Any]:
        """Yield the rows' documents, as the encoder takes them; the tally counts bytes and rows."""
        ...

    def placed(self, source: Source, tally: Tally) -> Iterator[tuple[Place, Any]]:
        """Yield the rows' documents, each with its place."""
        ...

    def place_of(self, source: Source, number: int) -> str:
        """Return a document's place, for messages; this may read the source up to it."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the documents tokenised so far, by name, of which `warnings` tells."""
        ...

    def warnings(self, counts: Mapping[str, int]) -> list[str]:
        """Return warnings about documents with these `counts`."""
        ...


def id_type(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the type of a tokenizer's ids in a store: two bytes if they fit, else four."""
    if num_ids(tokenizer) <= 1 << 16:
        return "<u2"
    return "<u4"


def id_of(tokenizer: PreTrainedTokenizerBase, name: str) -> int | None:
    """Return the id of a special token ("mask", "pad", "eos"); None if the tokenizer has none."""
    return getattr(tokenizer, f"{name}_token_id")


def batches(
    documents: Iterable[Document], content: Callable[[Document], str] = str
) -> Iterator[list[Document]]:
    """Yield documents in lists of about a quarter of a million characters."""
    batch = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(content(document))
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch = []
            size = 0
    if batch:
        yield batch


def tokenize(
    documents: Iterable[Document], encoder: DocumentEncoder[Document], writer: StoreWriter
) -> dict[str, Any]:
    """Write all documents into a store, in constant memory.

    Returns: `documents` and `bytes`, their number; `unknown`, texts that the vocabulary cannot express →
    how often they were met.
    """
    num_documents = 0
    total_bytes = 0
    unknown_text = UnknownText(encoder.backend)

    def hash_of(document: Document, text: str, content: bytes) -> int:
        whole = encoder.whole(document)
        return bytes_hash(content) if whole is text else content_hash(whole)

    def write(batch: list[Document], encoded: Encoded) -> None:
        nonlocal num_documents, total_bytes
        texts = [encoder.content(document) for document in batch]
        contents = [text.encode("utf-8", "surrogatepass") for text in texts]
        num_bytes = np.array([len(content) for content in contents])
        unknown = unknown_text.count(texts, encoded.tokens, encoded.lengths)
        of_documents = {
            "hashes": np.array([*map(hash_of, batch, texts, contents)], np.uint64),
            "bytes": num_bytes,
            "unknown_tokens": unknown.tokens,
            "unknown_bytes": unknown.num_bytes,
        }
        writer.append(*encoded, of_documents)
        num_documents += len(batch)
        total_bytes += int(num_bytes.sum())

    # The tokenizer releases the GIL: while a batch is tokenised, the one before is hashed and written.
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for batch in batches(documents, encoder.content):
            submitted = batch, pool.submit(encoder.encode, batch)
            if pending:
                write(pending[0], pending[1].result())
            pending = submitted
        if pending:
            write(pending[0], pending[1].result())
    return {
        "documents": num_documents,
        "bytes": total_bytes,
        "unknown": unknown_text.counts,
    }
