"""Texts: a row is one text."""

import copy
import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.fingerprint import fingerprint
from lmft.data.formats.base import Encoded, batches, id_of, separators
from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.objectives.base import SPECIAL, WORD_START
from lmft.system.token_ids import num_ids

_PIECE_CHARACTERS = 1 << 20  # a longer document is tokenised in pieces of this length
_WORD_MARK = "▁"  # begins a word in SentencePiece's vocabularies


class TextFormat:
    """A row is a text, in the columns of `data.text_column`."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.row_text = RowText.from_config(config)
        self.encoder = Encoder(tokenizer, word_starts)

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: columns and encoder."""
        return f"{self.row_text.key} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Iterator[str]:
        """Yield the texts."""
        return documents(source, self.row_text, tally)

    def place_of(self, source: Source, number: int) -> str:
        """Return the source's name and the document's number; nothing is read."""
        return f"{source.name}, document {number + 1}"

    def warnings(self) -> list[str]:
        """Return no warning: cleaned rows are counted in the store."""
        return []


class Encoder:
    """Turns texts into ids and flags, with the tokenizer's own separators around each document.

    If the tokenizer's template does not end texts (GPT-2, Llama), its end-of-text token is added to each
    document, if it has one. `prefix` and `suffix` belong around every window of a long document,
    `closing` only at the document's end. Truncation and padding saved in the tokenizer are switched off.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        """Create the encoder of a tokenizer.

        Args:
            tokenizer: the tokenizer.
            word_starts: WORD_START has to be set even if the vocabulary does not determine it. WordPiece
                and Metaspace vocabularies do, exactly as `word_ids` would; for others, the slower
                encoding that keeps `word_ids` is used.
        """
        self.backend: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self.backend.no_truncation()
        self.backend.no_padding()
        self.prefix, self.suffix = separators(self.backend)
        end = id_of(tokenizer, "eos")
        self.closing = [end] if not self.suffix and end is not None else []
        self.dtype = "<u2" if num_ids(tokenizer) <= 1 << 16 else "<u4"

        self._begins = word_beginnings(self.backend)
        self.has_word_starts = word_starts or self._begins is not None
        self._unknown = str(tokenizer.unk_token or "")
        self._flags = np.zeros(num_ids(tokenizer), np.uint8)
        self._flags[tokenizer.all_special_ids] = SPECIAL
        self._is_added = np.zeros(num_ids(tokenizer), bool)
        self._is_added[[i for i in tokenizer.added_tokens_decoder if i != tokenizer.unk_token_id]] = True
        if self._begins is not None:
            self._flags[self._begins] |= WORD_START

    @property
    def fingerprint(self) -> str:
        """Cache key of the encoder: it changes if ids or flags of any text might."""
        return fingerprint(
            self.backend.to_str(),
            self.prefix,
            self.suffix,
            self.closing,
            self._flags.tolist(),
            self.has_word_starts,
        )

    def content(self, document: str) -> str:
        """Return the text itself."""
        return document

    def encode(self, documents: list[str]) -> Encoded:
        """Return ids, flags and lengths of these documents."""
        pieces = [pieces_of(text) for text in documents]
        parts = [
            self._by_vocabulary(batch) or self._by_word_ids(batch)
            for batch in batches(chain.from_iterable(pieces))
        ]
        tokens, flags, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if len(lengths) > len(documents):
            firsts = np.cumsum([0] + [len(texts) for texts in pieces[:-1]])
            lengths = np.add.reduceat(lengths, firsts)
        return self._add_separators(tokens, flags, lengths)

    def _by_vocabulary(self, texts: list[str]) -> Encoded | None:
        """Encode texts with word starts from token ids alone; None if ids do not determine them.

        They do not if a text holds an added token, or spells the unknown token: it begins a word there,
        but the model can use the same id inside a word.
        """
        if self._begins is None or (self._unknown and any(self._unknown in text for text in texts)):
            return None
        tokens, lengths = _ids(self.backend.encode_batch_fast(texts, add_special_tokens=False))
        if self._is_added[tokens].any():
            return None
        flags = self._flags[tokens]
        starts = np.cumsum(lengths) - lengths
        flags[starts[lengths > 0]] |= WORD_START
        return Encoded(tokens, flags, lengths)

    def _by_word_ids(self, texts: list[str]) -> Encoded:
        """Encode texts with word starts from `word_ids`, if word starts are needed at all."""
        if not self.has_word_starts:
            tokens, lengths = _ids(self.backend.encode_batch_fast(texts, add_special_tokens=False))
            return Encoded(tokens, self._flags[tokens], lengths)
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        tokens, lengths = _ids(encodings)
        flags = self._flags[tokens] & SPECIAL | _word_starts(encodings, len(tokens))
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


def _ids(encodings: list[Encoding]) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of all texts [N] uint32, and the length of each [texts] int64."""
    ids = [encoding.ids for encoding in encodings]
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


def pieces_of(text: str) -> list[str]:
    """Split a long text before spaces, where pre-tokenizers split too, so that its tokens stay the same.

    Only a space that follows a character other than white space is split at. A piece without any is
    split at its maximal length.
    """
    pieces = []
    start = 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = text.rfind(" ", start + 1, end + 1)
        while cut > 0 and text[cut - 1].isspace():
            cut = text.rfind(" ", start + 1, cut)
        if cut <= 0:
            cut = end
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
