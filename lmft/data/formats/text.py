"""Texts: a row is one text."""

import copy
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.base import Encoded, batches, id_of, separators
from lmft.data.sources.cleaning import documents
from lmft.data.sources.source import Source
from lmft.objectives.base import SPECIAL, WORD_START

_PIECE_CHARACTERS = 1 << 20  # a longer document is tokenised in pieces of this length
_WORD_MARK = "▁"  # begins a word in SentencePiece's vocabularies


class TextFormat:
    """A row is a text, in the column `data.text_column`."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.text_column, self.encoder = config.text_column, Encoder(tokenizer, word_starts)

    @property
    def fingerprint(self) -> str:
        """Column and encoder."""
        return f"{self.text_column} {self.encoder.fingerprint}"

    def documents(
        self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]
    ) -> Iterator[str]:
        """The texts."""
        return documents(source, self.text_column, cleaned, advance)

    def place_of(self, source: Source, number: int) -> str:
        """Its number suffices: texts are counted as they come."""
        return f"{source.name}, document {number + 1}"

    def warnings(self) -> list[str]:
        """None: whatever is mended is counted."""
        return []


class Encoder:
    """Turns documents into ids and flags, with the tokenizer's own separators around each document.

    A tokenizer whose template ends no text (GPT-2, Llama) gets its end-of-text token behind each document, if
    it has one. `prefix` and `suffix` belong around every window of a long document, `closing` only at the
    document's end. Truncation and padding baked into the tokenizer are switched off.

    word_starts: whether WORD_START is wanted where it cannot be read from the vocabulary. WordPiece and
    Metaspace vocabularies tell it, exactly as `word_ids` would; for others the slower encoding that keeps
    `word_ids` is used.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.backend: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self.backend.no_truncation()
        self.backend.no_padding()
        self.prefix, self.suffix = separators(self.backend)
        end = id_of(tokenizer, "eos")
        self.closing = [end] if not self.suffix and end is not None else []
        self.dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"

        self._begins = word_beginnings(self.backend)
        self.has_word_starts = word_starts or self._begins is not None
        self._unknown = str(tokenizer.unk_token or "")
        self._flags = np.zeros(len(tokenizer), np.uint8)
        self._flags[tokenizer.all_special_ids] = SPECIAL
        self._is_added = np.zeros(len(tokenizer), bool)
        self._is_added[[i for i in tokenizer.added_tokens_decoder if i != tokenizer.unk_token_id]] = True
        if self._begins is not None:
            self._flags[self._begins] |= WORD_START

    @property
    def fingerprint(self) -> str:
        """Changes when the ids or flags of some text might."""
        parts = [
            self.backend.to_str(),
            self.prefix,
            self.suffix,
            self.closing,
            self._flags.tolist(),
            self.has_word_starts,
        ]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()

    def content(self, document: str) -> str:
        """The text itself."""
        return document

    def encode(self, documents: list[str]) -> Encoded:
        """Ids, flags and lengths of these documents."""
        pieces = [pieces_of(text) for text in documents]
        parts = [
            self._by_vocabulary(some) or self._by_word_ids(some)
            for some in batches(chain.from_iterable(pieces))
        ]
        tokens, flags, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if len(lengths) > len(documents):
            lengths = np.add.reduceat(lengths, np.cumsum([0] + [len(some) for some in pieces[:-1]]))
        return self._with_separators(tokens, flags, lengths)

    def _by_vocabulary(self, texts: list[str]) -> Encoded | None:
        """Words as the ids tell them; None where they do not. (An added token in the text, or the unknown
        token spelt out, is a word of its own; the same id can come from the model as a part of a word.)
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
        """Words as the encodings tell them, if they are wanted at all."""
        if not self.has_word_starts:
            tokens, lengths = _ids(self.backend.encode_batch_fast(texts, add_special_tokens=False))
            return Encoded(tokens, self._flags[tokens], lengths)
        encodings = self.backend.encode_batch(texts, add_special_tokens=False)
        tokens, lengths = _ids(encodings)
        return Encoded(tokens, self._flags[tokens] & SPECIAL | _word_starts(encodings, len(tokens)), lengths)

    def _with_separators(self, tokens: np.ndarray, flags: np.ndarray, lengths: np.ndarray) -> Encoded:
        behind = self.closing + self.suffix
        before, after = len(self.prefix), len(behind)
        lengths = lengths + before + after
        ends = np.cumsum(lengths)
        body = np.ones(int(ends[-1]) if len(ends) else 0, bool)
        all_tokens, all_flags = np.empty(len(body), np.uint32), np.empty(len(body), np.uint8)
        places = [ends - lengths + i for i in range(before)] + [ends - after + i for i in range(after)]
        for place, token in zip(places, self.prefix + behind, strict=True):
            body[place] = False
            all_tokens[place], all_flags[place] = token, SPECIAL | WORD_START
        all_tokens[body], all_flags[body] = tokens, flags
        return Encoded(all_tokens, all_flags, lengths)


def word_beginnings(backend: Tokenizer) -> list[int] | None:
    """The model's ids that begin a word wherever they stand, if that alone tells where words begin; else
    None.

    BERT's pre-tokenizer sets every "#" apart, so that only a continuation can begin with WordPiece's "##".
    Metaspace puts its mark before every word and splits there. (What stands first in a text begins a word
    too.)
    """
    spec = json.loads(backend.to_str())
    splitter: dict[str, Any] = spec["pre_tokenizer"] or {"type": None}
    model = spec["model"]
    vocabulary = backend.get_vocab(with_added_tokens=False)
    if model["type"] == "WordPiece" and splitter["type"] == "BertPreTokenizer":
        mark = model["continuing_subword_prefix"]
        return [i for token, i in vocabulary.items() if not token.startswith(mark)]
    steps = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    kinds, last = [step["type"] for step in steps], steps[-1]
    every_word_marked = kinds == ["Metaspace"] or (
        kinds == ["WhitespaceSplit", "Metaspace"] and last.get("prepend_scheme") == "always"
    )
    if not every_word_marked or not last.get("split", True) or last["replacement"] != _WORD_MARK:
        return None
    if _WORD_MARK in vocabulary:
        return [i for token, i in vocabulary.items() if token.startswith(_WORD_MARK)]
    return None


def _ids(encodings: list[Encoding]) -> tuple[np.ndarray, np.ndarray]:
    ids = [encoding.ids for encoding in encodings]
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    return np.fromiter(chain.from_iterable(ids), np.uint32, int(lengths.sum())), lengths


def _word_starts(encodings: list[Encoding], num_tokens: int) -> np.ndarray:
    """WORD_START where `word_ids` differs from the token before, and on each text's first token. [N] uint8"""
    word_ids = [encoding.word_ids for encoding in encodings]
    words = np.fromiter(
        (-1 if word is None else word for word in chain.from_iterable(word_ids)), np.int64, num_tokens
    )
    starts = np.ones(num_tokens, bool)
    starts[1:] = (words[1:] != words[:-1]) | (words[1:] < 0)
    lengths = np.fromiter(map(len, word_ids), np.int64, len(word_ids))
    firsts = np.cumsum(lengths) - lengths
    starts[firsts[lengths > 0]] = True
    return np.where(starts, WORD_START, np.uint8(0))


def pieces_of(text: str) -> list[str]:
    """A long text cut where tokenizers part it too, so that its pieces tokenise as the whole would; a short
    one whole.

    It is parted before a space that follows something else; where there is none for long, anywhere.
    """
    pieces, start = [], 0
    while len(text) - start > _PIECE_CHARACTERS:
        end = start + _PIECE_CHARACTERS
        cut = text.rfind(" ", start + 1, end + 1)
        while cut > 0 and text[cut - 1].isspace():
            cut = text.rfind(" ", start + 1, cut)
        cut = cut if cut > 0 else end
        pieces.append(text[start:cut])
        start = cut
    return [*pieces, text[start:]]
