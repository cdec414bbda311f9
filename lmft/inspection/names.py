"""Texts of single tokens, as they stand in a sentence."""

from collections.abc import Collection, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

_BROKEN = "\ufffd"  # decoders write it for bytes that are not a whole character


class TokenNames:
    """The texts of a tokenizer's tokens, with the space that a token begins with.

    They are found by decoding a token after another one, whatever kind of tokenizer it is.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ordinary: Collection[int]):
        """Keep the tokenizer.

        ordinary: ids that are not special.
        """
        self._tokenizer: Any = tokenizer
        self._ordinary = frozenset(ordinary)
        self._known: dict[tuple[int, ...], str] = {}
        self._anchor = self._find_anchor()

    def _find_anchor(self) -> int | None:
        """Return a token of letters, after which others are decoded; None if there is none."""
        for token in sorted(self._ordinary):
            if self._decoded([token]).isalpha():
                return token
        return None

    def _decoded(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
        return text if isinstance(text, str) else "".join(text)

    def is_special(self, token: int) -> bool:
        """Return whether a token is special."""
        return token not in self._ordinary

    def name(self, token: int) -> str:
        """Return a token as the vocabulary writes it."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        return f"<id {token}>" if name is None else str(name)

    def text(self, *ids: int) -> str:
        """Return the text of tokens; if it is not whole characters, as the vocabulary writes them."""
        if ids not in self._known:
            self._known[ids] = self._text(ids)
        return self._known[ids]

    def _text(self, ids: tuple[int, ...]) -> str:
        names = "".join(map(self.name, ids))
        if self._anchor is None or any(map(self.is_special, ids)):
            return names
        before = self._decoded([self._anchor])
        whole = self._decoded([self._anchor, *ids])
        text = whole.removeprefix(before)
        if _BROKEN in text or not whole.startswith(before):
            return names
        return text or names

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Return the texts of a sequence's tokens.

        A character that takes several tokens is the text of the first, and the others have none.
        """
        texts = [self.text(token) for token in ids]
        place = 0
        while place < len(ids):
            stop = self._end_of_character(ids, place)
            if stop > place + 1:
                texts[place:stop] = [self.text(*ids[place:stop]), *[""] * (stop - place - 1)]
            place = stop
        return texts

    def _end_of_character(self, ids: Sequence[int], start: int) -> int:
        """Return where the character ends that begins with a token; the next place if it is whole."""
        if not self._is_broken(ids[start : start + 1]):
            return start + 1
        for stop in range(start + 2, min(start + 5, len(ids) + 1)):
            if not self._is_broken(ids[start:stop]):
                return stop
        return start + 1

    def _is_broken(self, ids: Sequence[int]) -> bool:
        return not any(map(self.is_special, ids)) and _BROKEN in self._decoded(ids)
