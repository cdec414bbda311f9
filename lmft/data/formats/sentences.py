"""Find the ends of sentences in any script: tokens that end with a full stop, 。, । or ؟."""

import json
from typing import Any

import numpy as np
import regex
from tokenizers import Encoding, decoders
from transformers import PreTrainedTokenizerBase

# Unicode's property Sentence_Terminal (Standard Annex 44), then quotes and brackets (a token 。「).
_END = regex.compile(r"""\p{Sentence_Terminal}["'\p{Pe}\p{Pf}\p{Ps}\p{Pi}]*\Z""")
_MARK = regex.compile(r"\p{Sentence_Terminal}")
_WORD_MARKS = " ▁#"  # what pieces begin with, before their text


def _is_byte_level(tokenizer: PreTrainedTokenizerBase) -> bool:
    backend: Any = tokenizer.backend_tokenizer if tokenizer.is_fast else None
    return backend is not None and '"ByteLevel"' in json.dumps(json.loads(backend.to_str())["decoder"])


class SentenceEnds:
    """Finds the tokens that end a sentence.

    Ids alone tell it where each mark is a token. If a mark is split into bytes, or unknown to the
    vocabulary, the tokens' places in the text do.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        special = set(tokenizer.all_special_ids)
        ordinary = [number for number in range(len(tokenizer)) if number not in special]
        is_byte_level = _is_byte_level(tokenizer)
        pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ordinary)]
        if is_byte_level:
            decoder = decoders.ByteLevel()
            pieces = [decoder.decode([piece]) for piece in pieces]
        self.is_end = np.zeros(len(tokenizer), bool)  # [V] the token ends with a mark
        self.is_end[ordinary] = [_END.search(piece) is not None for piece in pieces]
        alone = {piece.lstrip(_WORD_MARKS) for piece in pieces}
        # Merges can put the bytes of a character of several into different tokens.
        self._known = {
            mark for mark in alone if _MARK.fullmatch(mark) and (mark.isascii() or not is_byte_level)
        }

    def are_told_by_ids(self, text: str) -> bool:
        """Return whether `is_end` finds all ends of the text's sentences."""
        return self._known.issuperset(_MARK.findall(text))

    def of(self, text: str, encoding: Encoding) -> list[bool]:
        """Return whether each token of an encoded text ends a sentence, by its place in the text.

        Of several tokens that share a character, the last one does.
        """
        spans = encoding.offsets
        next_starts = [*(start for start, _ in spans), len(text)][1:]
        return [
            next_start >= end and _END.search(text[start:end]) is not None
            for (start, end), next_start in zip(spans, next_starts, strict=True)
        ]
