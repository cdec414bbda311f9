"""Where the answers of a rendered conversation end."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property

from lmft.data.formats.chat.rendering import Span


class AnswerEnds:
    """Finds where answers end: after their end-of-turn token.

    White space after that is the template's. A special token that follows an answer without one, after
    white space at most, ends it if it is the end of text, if it ends another answer, or if only special
    tokens follow it where no message does.
    """

    def __init__(self, specials: Sequence[str], eos: str | None):
        """Take a tokenizer's special tokens.

        Args:
            specials: all of them.
            eos: the end of text; None: the tokenizer has none.
        """
        self._specials = tuple(specials)
        self._eos = eos

    def without(self, turn: str) -> str:
        """Return a turn without its end-of-turn token and the white space around that."""
        turn = turn.rstrip()
        return turn.removesuffix(self._end_of(turn) or "")

    def completed(
        self, text: str, answers: list[list[Span]], alone: Callable[[], str]
    ) -> list[list[Span]]:
        """Return the answers in a text, each up to its end of turn.

        `alone` gives the text up to the last one, rendered without the messages after it.
        """
        completed = [[*spans[:-1], self._trimmed(text, spans[-1])] for spans in answers]
        start, end = completed[-1][-1]
        if not self._is_ended(text, (start, end)):
            upto = alone()
            stop = self.only_an_end(upto, end, len(upto))
            if text.startswith(upto[:stop]):
                completed[-1][-1] = (start, stop)
        ends = {self._end_of(text[start:end]) for start, end in (spans[-1] for spans in completed)}
        known = "|".join(re.escape(end) for end in sorted(filter(None, {*ends, self._eos})))
        for spans in completed:
            start, end = spans[-1]
            follows = re.compile(rf"\s*(?:{known})").match(text, end) if known else None
            if follows and not self._is_ended(text, (start, end)):
                spans[-1] = (start, follows.end())
        return completed

    def only_an_end(self, text: str, start: int, stop: int) -> int:
        """Return the end of the first special token, if only such follow in [start, stop); else
        `start`.
        """
        found = self._only_ends.fullmatch(text, start, stop)
        return found.end(1) if found else start

    def _trimmed(self, text: str, span: Span) -> Span:
        start, end = span
        body = text[start:end].rstrip()
        return (start, start + len(body)) if self._end_of(body) else span

    def _is_ended(self, text: str, span: Span) -> bool:
        return text[span[0] : span[1]].endswith(self._specials)

    def _end_of(self, text: str) -> str | None:
        """Return the special token that a text ends with."""
        if not text.endswith(self._specials):
            return None
        return next(token for token in self._specials if text.endswith(token))

    @cached_property
    def _only_ends(self) -> re.Pattern[str]:
        """Pattern of white space and special tokens; group 1: up to the first special token, or all."""
        special = "|".join(map(re.escape, self._specials)) or "(?!)"
        return re.compile(rf"(\s*(?:{special}|\Z))(?:\s|{special})*")
