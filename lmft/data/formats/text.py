"""Texts: a row is one text."""

import json
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from lmft.data.config import DataConfig
from lmft.data.fingerprint import fingerprint
from lmft.data.formats.backend import FastBackend, backend_of
from lmft.data.formats.base import Encoded, batches, id_of, id_type
from lmft.data.formats.pieces import pieces_of
from lmft.data.formats.sentences import SentenceEnds
from lmft.data.sources.cleaning import documents, placed_documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError
from lmft.objectives.base import SENTENCE_END, SPECIAL, WORD_START, Objective
from lmft.objectives.span_corruption import sentinel_ids
from lmft.system.token_ids import num_ids

_WORD_MARK = "▁"  # begins a word in SentencePiece's vocabularies


class TextFormat:
    """A row is a text, in the columns of `data.text_column`."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerBase, objective: Objective):
        self.row_text = RowText.from_config(config)
        self.encoder = Encoder(
            tokenizer, objective.needs_word_starts, sentence_ends=objective.needs_sentence_ends
        )

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: columns and encoder."""
        return f"{self.row_text.key} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Iterator[str]:
        """Yield the texts."""
        return documents(source, self.row_text, tally)

    def placed(self, source: Source, tally: Tally) -> Iterator[tuple[Place, str]]:
        """Yield the texts, each with its place."""
        return placed_documents(source, self.row_text, tally)

    def place_of(self, source: Source, number: int) -> str:
        """Return the source's name and the document's number; nothing is read."""
        return f"{source.name}, document {number + 1}"

    @property
    def counts(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def warnings(self, counts: Mapping[str, int]) -> list[str]:
        """Return no warning: cleaned rows are counted in the store."""
        return []


class Encoder:
    """Turns texts into ids and flags, with the tokenizer's own separators around each document.

    If the tokenizer's template does not end texts (GPT-2, Llama), its end-of-text token is added to each
    document, if it has one. `prefix` and `suffix` belong around every window of a long document,
    `closing` only at the document's end. Truncation and padding saved in the tokenizer are switched off.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        word_starts: bool,
        sentence_ends: bool = False,
        is_target: bool = False,
    ):
        """Create the encoder of a tokenizer.

        Args:
            tokenizer: the tokenizer.
            word_starts: WORD_START has to be set even if the vocabulary does not determine it. WordPiece
                and Metaspace vocabularies do, exactly as `word_ids` would; for others, the slower
                encoding that keeps `word_ids` is used.
            sentence_ends: SENTENCE_END has to be set.
            is_target: texts are those that the model writes (`tokenizer(text_target=…)`).

        Raises: UserError if the tokenizer cannot tell where words begin, and that is needed.
        """
        self.backend = backend_of(tokenizer, is_target)
        self.prefix = self.backend.prefix
        self.suffix = self.backend.suffix
        end = id_of(tokenizer, "eos")
        self.closing = [end] if not self.suffix and end is not None else []
        self.dtype = id_type(tokenizer)

        self._begins: list[int] | None = None
        if isinstance(self.backend, FastBackend):
            self._begins = word_beginnings(self.backend.fast)
        elif word_starts:
            what = f"{type(tokenizer).__name__} cannot tell where words begin: it has no tokenizer.json"
            raise UserError(what, "objective=whole_word", "objective=mlm")
        self.has_word_starts = word_starts or self._begins is not None
        self._unknown = str(tokenizer.unk_token or "")
        self._flags = np.zeros(num_ids(tokenizer), np.uint8)
        self._flags[tokenizer.all_special_ids] = SPECIAL
        self._flags[list(sentinel_ids(tokenizer.get_vocab()).values())] = SPECIAL
        self._is_added = np.zeros(num_ids(tokenizer), bool)
        self._is_added[[i for i in tokenizer.added_tokens_decoder if i != tokenizer.unk_token_id]] = True
        if self._begins is not None:
            self._flags[self._begins] |= WORD_START
        self._sentences = SentenceEnds(tokenizer) if sentence_ends else None
        if self._sentences is not None:
            self._flags[self._sentences.is_end] |= SENTENCE_END

    @property
    def fingerprint(self) -> str:
        """Cache key of the encoder: it changes if ids or flags of any text might."""
        return fingerprint(
            self.backend.key,
            self.prefix,
            self.suffix,
            self.closing,
            self._flags.tolist(),
            self.has_word_starts,
        )

    @property
    def template(self) -> dict[str, list[int]]:
        """The separators around a document, as the store keeps them."""
        return {"prefix": self.prefix, "suffix": self.suffix}

    def content(self, document: str) -> str:
        """Return the text itself."""
        return document

    def whole(self, document: str) -> str:
        """Return the content: a row is one document."""
        return self.content(document)

    def encode(self, documents: list[str]) -> Encoded:
        """Return ids, flags and lengths of these documents."""
        pieces = [pieces_of(text) for text in documents]
        parts = [self._encode(batch) for batch in batches(chain.from_iterable(pieces))]
        tokens, flags, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if len(lengths) > len(documents):
            firsts = np.cumsum([0] + [len(texts) for texts in pieces[:-1]])
            lengths = np.add.reduceat(lengths, firsts)
        return self._add_separators(tokens, flags, lengths)

    def _encode(self, texts: list[str]) -> Encoded:
        """Encode texts without separators, as fast as the flags that are needed allow."""
        if not isinstance(self.backend, FastBackend):
            tokens, lengths = _joined(self.backend.ids(texts))
            return Encoded(tokens, self._flags[tokens], lengths)
        sentences = self._sentences
        if sentences is None or all(map(sentences.are_told_by_ids, texts)):
            encoded = self._by_vocabulary(texts)
            if encoded is not None:
                return encoded
        return self._by_encodings(texts, self.backend)

    def _by_vocabulary(self, texts: list[str]) -> Encoded | None:
        """Encode texts with flags from token ids alone; None if ids do not determine word starts.

        They do not if a text holds an added token, or spells the unknown token: it begins a word there,
        but the model can use the same id inside a word.
        """
        if self.has_word_starts:
            if self._begins is None:
                return None
            if self._unknown and any(self._unknown in text for text in texts):
                return None
        tokens, lengths = _joined(self.backend.ids(texts))
        flags = self._flags[tokens]
        if self.has_word_starts:
            if self._is_added[tokens].any():
                return None
            starts = np.cumsum(lengths) - lengths
            flags[starts[lengths > 0]] |= WORD_START
        return Encoded(tokens, flags, lengths)

    def _by_encodings(self, texts: list[str], backend: FastBackend) -> Encoded:
        """Encode texts with flags from the tokens' words and characters."""
        encodings = backend.encodings(texts)
        tokens, lengths = _joined([encoding.ids for encoding in encodings])
        flags = self._flags[tokens]
        if self.has_word_starts:
            flags = flags & ~WORD_START | _word_starts(encodings, len(tokens))
        if self._sentences is not None:
            flags = flags | _sentence_ends(self._sentences, texts, encodings)
        return Encoded(tokens, flags, lengths)

    def _add_separators(self, tokens: np.ndarray, flags: np.ndarray, lengths: np.ndarray) -> Encoded:
        """Add the separators around each document. tokens, flags [N], lengths [documents]"""
        ending = self.closing + self.suffix
        num_before = len(self.prefix)
        num_after = len(ending)
        lengths = lengths + num_before + num_after
        ends = np.cumsum(lengths)
        num_tokens = int(ends[-1]) if len(ends) else 0
        is_text = np.ones(num_tokens, bool)
        all_tokens = np.empty(num_tokens, np.uint32)
        all_flags = np.empty(num_tokens, np.uint8)
        places = [ends - lengths + i for i in range(num_before)]
        places += [ends - num_after + i for i in range(num_after)]
        for place, token in zip(places, self.prefix + ending, strict=True):
            is_text[place] = False
            all_tokens[place] = token
            all_flags[place] = SPECIAL | WORD_START
        all_tokens[is_text] = tokens
        all_flags[is_text] = flags
        return Encoded(all_tokens, all_flags, lengths)


def word_beginnings(backend: Tokenizer) -> list[int] | None:
    """Return the ids that always begin a word, if they alone determine where words begin; else None.

    They do with BERT's pre-tokenizer, which isolates every "#", so that only a continuation can begin
    with WordPiece's "##"; and with Metaspace, which puts its mark before every word and splits there. (A
    text's first token begins a word too.)
    """
    spec = json.loads(backend.to_str())
    splitter: dict[str, Any] = spec["pre_tokenizer"] or {"type": None}
    model = spec["model"]
    vocabulary = backend.get_vocab(with_added_tokens=False)
    if model["type"] == "WordPiece" and splitter["type"] == "BertPreTokenizer":
        mark = model["continuing_subword_prefix"]
        return [i for token, i in vocabulary.items() if not token.startswith(mark)]
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    kinds = [step["type"] for step in steps]
    last = steps[-1]
    every_word_marked = kinds == ["Metaspace"] or (
        kinds == ["WhitespaceSplit", "Metaspace"] and last.get("prepend_scheme") == "always"
    )
    if not every_word_marked or not last.get("split", True) or last["replacement"] != _WORD_MARK:
        return None
    if _WORD_MARK in vocabulary:
        return [i for token, i in vocabulary.items() if token.startswith(_WORD_MARK)]
    return None


def _joined(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts [N] uint32, and the length of each [texts] int64."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths


def _word_starts(encodings: list[Encoding], num_tokens: int) -> np.ndarray:
    """Return WORD_START where `word_ids` changes and at each text's first token, else 0. [N] uint8"""
    word_ids = [encoding.word_ids for encoding in encodings]
    numbers = (-1 if word is None else word for word in chain.from_iterable(word_ids))
    words = np.fromiter(numbers, np.int64, num_tokens)
    starts = np.ones(num_tokens, bool)
    starts[1:] = (words[1:] != words[:-1]) | (words[1:] < 0)
    lengths = np.fromiter(map(len, word_ids), np.int64, len(word_ids))
    firsts = np.cumsum(lengths) - lengths
    starts[firsts[lengths > 0]] = True
    return np.where(starts, WORD_START, np.uint8(0))


def _sentence_ends(sentences: SentenceEnds, texts: list[str], encodings: list[Encoding]) -> np.ndarray:
    """Return SENTENCE_END at the tokens that end a sentence, else 0. [N] uint8"""
    ends = [sentences.of(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]
    return np.where(list(chain.from_iterable(ends)), SENTENCE_END, np.uint8(0)).astype(np.uint8)
