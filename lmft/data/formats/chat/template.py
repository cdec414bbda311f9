"""Chat templates: they render a conversation as text, and find the assistant's answers in it."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from lmft.data.formats.chat.conversation import Chat, Conversation, Messages
from lmft.data.sources.files import expanded
from lmft.errors import UserError, did_you_mean

# Special tokens that each template of ours needs, and the one that ends a turn.
SHIPPED = {"chatml": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"), "plain": ([], None)}
NO_TEMPLATE_FIX = "data.chat_template=chatml, data.chat_template=plain or data.chat_template=FILE"
_FOLDER = Path(__file__).with_name("templates")
_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_CONTENTS = ("reasoning_content", "thinking", "reasoning", "content", "tool_calls")  # keys of a message
_PLACEHOLDER = "\ue000"  # for private use in Unicode, so that no template treats it specially
_OTHER_TEMPLATE_FIX = "data.chat_template=chatml, or a template with {% generation %} marks"


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template that renders conversations, and finds the answers in the text.

    Its `{% generation %}` marks tell the answers, if it has any. If not, an answer is the text that
    follows the rendered messages before it with the generation prompt: exactly the text that the model
    has to write there. If the template has no generation prompt, or nothing comes before the answer, it
    begins after the header of its turn. (A turn with only tool calls is then an answer as a whole.)

    An answer ends with its end-of-turn token; white space after that is the template's. If the marks
    exclude the last end-of-turn token, the last answer is extended to it, so that the end of a turn is
    always learnt.
    """

    source: str
    # Has the special tokens that the template writes; read at the first conversation.
    tokenizer: PreTrainedTokenizerFast
    special_tokens: list[str]  # that the tokenizer must have
    eos_token: str | None  # that ends a turn, if it has to be the tokenizer's end-of-text token

    @classmethod
    def load(cls, name: str | None, tokenizer: PreTrainedTokenizerFast) -> Self:
        """Load a template: the tokenizer's own (None), one of ours (`chatml`, `plain`) or a file.

        Raises: UserError.
        """
        tokens, end = SHIPPED.get(name or "", ([], None))
        if name is None:
            source = _own_template(tokenizer)
        elif name in SHIPPED:
            source = (_FOLDER / f"{name}.jinja").read_text("utf-8")
        else:
            source = _read(name)
        try:
            render_jinja_template([], chat_template=source)  # compiles it
        except jinja2.TemplateSyntaxError as error:
            where = name or "the tokenizer's chat template"
            what = f"the chat template is not valid jinja: {error.message}"
            raise UserError(what, f"{where}, line {error.lineno}", NO_TEMPLATE_FIX) from error
        return cls(source, tokenizer, list(tokens), end)

    def render(self, chat: Chat) -> Conversation:
        """Render a conversation and find its answers. Raises: UserError."""
        messages = chat.messages
        tools = chat.tools
        is_learnt = chat.is_learnt or [True] * len(messages)
        if self._is_marked:
            text, answers = self._write(messages, tools, marked=True)
            first = is_learnt.index(True)
            if any(message["role"] == "assistant" for message in messages[:first]):
                answers = answers[len(self._write(messages[:first], tools, marked=True)[1]) :]
        else:
            text, _ = self._write(messages, tools)
            turns = [
                i
                for i, message in enumerate(messages)
                if message["role"] == "assistant" and is_learnt[i]
            ]
            answers = [self._find_turn(messages, i, tools, text) for i in turns]
        answers = [
            (start, self._find_end(text, start, end, i == len(answers)))
            for i, (start, end) in enumerate(answers, 1)
        ]
        answers = [(start, end) for start, end in answers if start < end]
        return Conversation(text, answers, _contents(messages), is_rendered=True)

    def text(self, chat: Chat) -> str:
        """Render a conversation without looking for its answers. Raises: UserError."""
        return self._write(chat.messages, chat.tools)[0]

    def _find_turn(
        self, messages: Messages, i: int, tools: list[dict] | None, text: str
    ) -> tuple[int, int]:
        """Return [start, end) of message i, which is the assistant's, in the text of all messages."""
        upto = text if i + 1 == len(messages) else self._write(messages[: i + 1], tools)[0]
        _check_beginning(text, upto, i)
        before = self._write(messages[:i], tools, prompted=True)[0] if i else ""
        _check_beginning(upto, before, i)
        turn = upto[len(before) :]
        content = messages[i].get("content", "").strip()
        is_only_content = self._without_end(turn).strip() == content
        # Without a generation prompt, the turn may begin with a header.
        if not is_only_content and (not i or before == self._write(messages[:i], tools)[0]):
            return len(before) + self._header_length(messages[: i + 1], tools, before, turn), len(upto)
        return len(before), len(upto)

    def _header_length(
        self, messages: Messages, tools: list[dict] | None, before: str, turn: str
    ) -> int:
        """Return the length of the last turn's header, found by rendering a placeholder in its place."""
        last = messages[-1]
        placeholders = {
            key: _PLACEHOLDER for key in _CONTENTS if last.get(key) and isinstance(last[key], str)
        }
        text, _ = self._write([*messages[:-1], {**last, **placeholders}], tools)
        header, placeholder, _ = text.removeprefix(before).partition(_PLACEHOLDER)
        if placeholders and not (placeholder and turn.startswith(header)):
            what = "the chat template has no generation prompt, "
            what += f"and where message {len(messages)} begins is not clear"
            raise UserError(what, fix=_OTHER_TEMPLATE_FIX)
        return len(header) if placeholders and header.strip() else 0

    def _find_end(self, text: str, start: int, end: int, is_last: bool) -> int:
        """Return where an answer ends: after its end of turn, before the white space that follows."""
        body = text[start:end].rstrip()
        if body.endswith(self._specials):
            return start + len(body)
        if not is_last:
            return end
        rest = self._only_an_end.fullmatch(text, end)
        return rest.end(1) if rest else end

    def _without_end(self, turn: str) -> str:
        turn = turn.rstrip()
        return next((turn.removesuffix(token) for token in self._specials if turn.endswith(token)), turn)

    def _write(
        self, messages: Messages, tools: list[dict] | None, prompted: bool = False, marked: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """Render messages; return the text, and [start, end) of each part marked as generated.

        Args:
            messages: the messages.
            tools: the tools, as JSON schemas.
            prompted: add the generation prompt.
            marked: return the marks.

        Raises: UserError.
        """
        try:
            texts, marks = render_jinja_template(
                [messages],
                tools,  # pyright: ignore[reportArgumentType] (a list is invariant)
                chat_template=self.source,
                add_generation_prompt=prompted,
                return_assistant_tokens_mask=marked,
                **self._variables,
            )
        except Exception as error:  # a template is a program: it can fail in any way
            verb = "refuses" if type(error) is jinja2.TemplateError else "fails on"
            reason = " ".join(str(error).split())
            what = f"the chat template {verb} the conversation: {reason}"
            raise UserError(what, fix="fix the row, or give another data.chat_template") from error
        # It is annotated to return one text.
        return texts[0], marks[0] if marked else []  # pyright: ignore[reportReturnType]

    @cached_property
    def _is_marked(self) -> bool:
        return _MARK.search(self.source) is not None

    @cached_property
    def _variables(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _specials(self) -> tuple[str, ...]:
        added = [
            token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special
        ]
        return tuple(sorted({*added, *self.tokenizer.all_special_tokens}))

    @cached_property
    def _only_an_end(self) -> re.Pattern[str]:
        """Pattern of white space and special tokens; group 1: up to the first special token, or all."""
        special = "|".join(map(re.escape, self._specials)) or "(?!)"
        return re.compile(rf"(\s*(?:{special}|\Z))(?:\s|{special})*")


def _check_beginning(text: str, beginning: str, i: int) -> None:
    """Raise UserError if a text does not begin with that of its messages up to number i."""
    if text.startswith(beginning):
        return
    at = next((at for at, (a, b) in enumerate(zip(text, beginning, strict=False)) if a != b), len(text))
    what = (
        f"the chat template writes message {i + 1}, or what precedes it, differently when more follows"
    )
    what += f": {text[at : at + 20]!r} instead of {beginning[at : at + 20]!r} at character {at + 1}"
    raise UserError(what, fix=_OTHER_TEMPLATE_FIX)


def _contents(messages: Messages) -> str:
    values = [message[key] for message in messages for key in _CONTENTS if key in message]
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    )


def _own_template(tokenizer: PreTrainedTokenizerFast) -> str:
    if not tokenizer.chat_template:
        raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
    try:
        return tokenizer.get_chat_template()
    except ValueError as error:
        names = ", ".join(sorted(tokenizer.chat_template))
        raise UserError(
            f"none of the tokenizer's chat templates is 'default': {names}", fix=NO_TEMPLATE_FIX
        ) from error


def _read(name: str) -> str:
    path = expanded(name)
    where = f"data.chat_template={name}"
    if not path.exists():
        what = f"no chat template '{name}'{did_you_mean(name, SHIPPED)}, and no such file"
        raise UserError(what, where, NO_TEMPLATE_FIX)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the chat template cannot be read: {reason}", where, NO_TEMPLATE_FIX) from error
