"""Turns: where the assistant's answers are in a rendered conversation."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lmft.data.formats.chat.answer_ends import AnswerEnds
from lmft.data.formats.chat.conversation import Messages
from lmft.data.formats.chat.rendering import Rendering, Span
from lmft.errors import UserError

CONTENTS = ("reasoning_content", "thinking", "reasoning", "content", "tool_calls")  # keys of a message
OTHER_TEMPLATE_FIX = "data.chat_template=chatml, or a template with {% generation %} marks"
_PLACEHOLDER = "\ue000"  # for private use in Unicode, so that no template treats it specially
_QUESTION = [{"role": "user", "content": _PLACEHOLDER}]


@dataclass(frozen=True)
class Answer:
    """The place of an answer in a text."""

    spans: list[Span]  # in order
    header: int  # where the header of its turn begins
    # What follows the generation prompt that the model gets is the answer. False: the template ends
    # that prompt with something that it does not write before this answer.
    is_prompted: bool


class Turns:
    """The turns of one conversation.

    An answer begins where the generation prompt ends that the template writes after the messages before
    it: exactly the text that the model has to write there. If the template rewrites the messages before
    it once more follow, that prompt is looked for where the turn begins; if it has none, the answer
    begins after the turn's header. `{% generation %}` marks tell the answers instead, if there are any.
    """

    def __init__(
        self,
        write: Callable[[Messages, bool], Rendering],
        text_of: Callable[[Messages, bool], str],
        messages: Messages,
        is_marked: bool,
        ends: AnswerEnds,
    ):
        """Render a conversation. Raises: UserError.

        Args:
            write: renders messages, with the generation prompt or without it.
            text_of: does so, and returns the text alone, which takes less time.
            messages: the conversation.
            is_marked: the template has `{% generation %}` marks.
            ends: finds the ends of its answers.
        """
        self._write = write
        self._text_of = text_of
        self.messages = messages
        self._is_marked = is_marked
        self._ends = ends
        self.rendering = write(messages, False)
        self._befores: dict[int, str | None] = {}

    @property
    def text(self) -> str:
        """The rendered conversation."""
        return self.rendering.text

    @property
    def speakers(self) -> list[tuple[int, int, str]]:
        """The parts [start, end) of the text written for messages, and the messages' roles."""
        turns = self.rendering.turns.items()
        return sorted(
            (start, end, self.messages[message]["role"]) for message, own in turns for start, end in own
        )

    def answers(self, numbers: Sequence[int]) -> list[Answer]:
        """Return the answers that these messages are. Raises: UserError for what cannot be told."""
        found = {i: self._marked(i) if self._is_marked else self._answer(i) for i in numbers}
        answers = {i: answer for i, answer in found.items() if answer.spans}
        if not answers:
            return []
        spans = [answer.spans for answer in answers.values()]
        ended = self._ends.completed(self.text, spans, lambda: self._upto(max(answers)))
        spans = [[span for span in own if span[0] < span[1]] for own in ended]
        written = zip(answers.values(), spans, strict=True)
        return [replace(answer, spans=own) for answer, own in written if own]

    def _upto(self, i: int) -> str:
        """Return the text of the messages up to number i alone; all of it if they cannot stand alone."""
        if i + 1 == len(self.messages):
            return self.text
        try:
            return self._text_of(self.messages[: i + 1], False)
        except UserError:  # as in `before`
            return self.text

    def _marked(self, i: int) -> Answer:
        """Return what is marked in the turn of message i, and its end of turn if that is all that
        follows.
        """
        spans: list[Span] = []
        for start, end in self.rendering.marks:
            if start == end or not self._is_of(start, i):
                continue
            if spans and not self.text[spans[-1][1] : start].strip():
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        turn = self.rendering.turns.get(i)
        if spans and turn:
            start, end = spans[-1]
            spans[-1] = (start, self._ends.only_an_end(self.text, end, turn[-1][1]))
        return Answer(spans, turn[0][0] if turn else 0, True)

    def _is_of(self, place: int, i: int) -> bool:
        """Return whether the text at a place is of the turn of message i."""
        owner = self.rendering.owner_at(place)
        if owner is None:
            start, end = self._untracked(i)
            return start <= place < end
        while owner and self.messages[owner]["role"] == "tool":  # written within the assistant's turn
            owner -= 1
        return owner == i

    def _answer(self, i: int) -> Answer:
        spans = self.rendering.turns.get(i) or [self._untracked(i)]
        header, start, is_prompted = self._beginning(i, spans)
        spans = [(max(first, start), end) for first, end in spans if end >= start]
        return Answer(spans, header, is_prompted)

    def _beginning(self, i: int, spans: list[Span]) -> tuple[int, int, bool]:
        """Return where the header of message i begins and ends, and whether it is the generation
        prompt.
        """
        first = spans[0][0]
        last = spans[-1][1]
        before = self.before(i)
        if before and self.text.startswith(before) and first < len(before) <= last:
            return first, len(before), True
        written = "".join(self.text[start:end] for start, end in spans)
        if self._ends.without(written).strip() == self.messages[i].get("content", "").strip():
            return first, first, self._follows(before) or not self.generation_prompt(i)
        prompt = self.generation_prompt(i)
        if not prompt:
            return self._unprompted(i, first, before)
        for at in range(first, max(0, first - len(prompt)) - 1, -1):
            if self.text.startswith(prompt, at) and at + len(prompt) <= last:
                return at, at + len(prompt), True
        head = (self._without_contents(i) or self.text[first:last]).partition(_PLACEHOLDER)[0]
        at = head.find(prompt)
        if at >= 0 and self.text.startswith(head, first):  # after the text's beginning
            return first + at, first + at + len(prompt), True
        return first, first + self._common_length(i, first, prompt), False

    def _unprompted(self, i: int, first: int, before: str | None) -> tuple[int, int, bool]:
        """Return what `_beginning` does, for a message without a generation prompt before it."""
        usual = self.generation_prompt(0)
        if usual and self.text.startswith(usual, first):
            return first, first + len(usual), False
        if usual:  # as after the result of a tool, where the assistant continues
            return first, first, self._follows(before)
        return first, first + self._header_length(i, first), True

    def _follows(self, before: str | None) -> bool:
        return before is None or self.text.startswith(before)

    def before(self, i: int) -> str | None:
        """Return the messages before number i with the generation prompt, which is what the model gets.

        None: nothing comes before it, or the template cannot render that alone.
        """
        if i not in self._befores:
            try:
                self._befores[i] = self._text_of(self.messages[:i], True) if i else None
            except UserError:  # some templates want a conversation to begin with a question
                self._befores[i] = None
        return self._befores[i]

    def generation_prompt(self, i: int) -> str:
        """Return the generation prompt after the messages before number i, alone; empty: none."""
        for messages in (self.messages[:i], _QUESTION):
            if not messages:
                continue
            try:
                prompted = self._write(messages, True)
                plain = self._write(messages, False)
            except UserError:  # as above
                continue
            if prompted.text.startswith(plain.text):
                return prompted.text[len(plain.text) :]
            return "".join(prompted.pieces[_num_common(prompted.pieces, plain.pieces) :])
        return ""

    def _without_contents(self, i: int) -> str | None:
        """Return the turn of message i with placeholders for its texts; None if it has none."""
        message = self.messages[i]
        placeholders = {
            key: _PLACEHOLDER for key in CONTENTS if message.get(key) and isinstance(message[key], str)
        }
        if not placeholders:
            return None
        others = [*self.messages[:i], {**message, **placeholders}, *self.messages[i + 1 :]]
        rendering = self._write(others, False)
        spans = rendering.turns.get(i)
        if spans:
            return "".join(rendering.text[start:end] for start, end in spans)
        return rendering.text[self._untracked(i)[0] :]

    def _header_length(self, i: int, start: int) -> int:
        """Return the length of a header that is not a generation prompt, at `start`."""
        turn = self._without_contents(i)
        if turn is None:
            return 0
        header, placeholder, _ = turn.partition(_PLACEHOLDER)
        if not placeholder and self.messages[i].get("tool_calls"):
            return 0
        if not (placeholder and self.text.startswith(header, start)):
            what = "the chat template has no generation prompt, "
            what += f"and where message {i + 1} begins is not clear"
            raise UserError(what, fix=OTHER_TEMPLATE_FIX)
        return len(header) if header.strip() else 0

    def _common_length(self, i: int, start: int, prompt: str) -> int:
        """Return how much of the generation prompt a turn begins with that does not hold all of it.

        Templates whose generation prompt ends in `<think>` write answers without it. What they have in
        common ends at the answer's text, or else at white space or the end of a tag.
        """
        turn = self._without_contents(i) or self.text[start:]
        written = self.text[start:]
        length = min(_num_common(prompt, turn), _num_common(prompt, written))
        common = prompt[:length]
        if turn[len(common) : len(common) + 1] == _PLACEHOLDER:
            return len(common)
        ends = re.match(r".*\s", common, re.DOTALL) or re.match(r".*[>\]]", common, re.DOTALL)
        return ends.end() if ends else 0

    def _untracked(self, i: int) -> Span:
        """Return what message i adds to the text of the messages before it, where no loop tells it.

        Raises: UserError if the messages before it, or up to it, are written differently when more
        follows, or if nothing is written for it.
        """
        upto = self._text_of(self.messages[: i + 1], False)
        before = self._text_of(self.messages[:i], False) if i else ""
        for text, beginning in ((self.text, upto), (upto, before)):
            if not text.startswith(beginning):
                at = _num_common(text, beginning)
                what = f"the chat template writes message {i + 1}, or what precedes it, differently"
                what += f" when more follows: {text[at : at + 20]!r} instead of"
                what += f" {beginning[at : at + 20]!r} at character {at + 1}"
                raise UserError(what, fix=OTHER_TEMPLATE_FIX)
        if not upto[len(before) :].strip():
            what = f"the chat template writes nothing of message {i + 1}, an answer"
            raise UserError(what, fix="leave the message out, or give another data.chat_template")
        return len(before), len(upto)


def _num_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many items two sequences begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    shorter = min(len(first), len(second))
    return next((at for at, (one, other) in pairs if one != other), shorter)
