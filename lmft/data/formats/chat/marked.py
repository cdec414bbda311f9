"""Marked text: a conversation that is one text, with markers before questions and answers."""

from dataclasses import dataclass

from lmft.data.formats.chat.conversation import Conversation
from lmft.errors import UserError


@dataclass(frozen=True)
class Markers:
    """The texts that stand before each answer and before each question."""

    response: str
    instruction: str | None  # None: a text has one answer, which ends it

    def conversation(self, text: str) -> Conversation:
        """Find the answers: from the end of a response marker to the next marker, or the text's end.

        Raises: UserError if there is no answer, an empty one, or one whose end is not clear.
        """
        answers = []
        at = text.find(self.response)
        while at >= 0:
            start = at + len(self.response)
            at = text.find(self.response, start)
            end = self._end(text, start, at)
            if not text[start:end].strip():
                what = f"nothing follows {self.response!r} at character {start + 1}"
                raise UserError(what, fix="leave the row out, or give the answer")
            answers.append((start, end))
        if not answers:
            what = f"the text has no {self.response!r}"
            raise UserError(what, fix="data.response_template=TEXT that stands before each answer")
        return Conversation(text, answers, text, is_rendered=False)

    def _end(self, text: str, start: int, next_response: int) -> int:
        """Return where the answer that begins at `start` ends."""
        if self.instruction is None:
            if next_response < 0:
                return len(text)
            what = f"the text has several {self.response!r}, and where their answers end is not clear"
            raise UserError(what, fix="data.instruction_template=TEXT that stands before each question")
        ends = [text.find(self.instruction, start), next_response]
        return min((end for end in ends if end >= 0), default=len(text))
