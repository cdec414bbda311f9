"""Chat templates: they write a conversation as text, and tell where in it the model speaks."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jinja2
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from lmft.data.sources.files import expanded
from lmft.errors import UserError, did_you_mean

# Tokens needed, end of turn.
SHIPPED = {"chatml": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"), "plain": ([], None)}
NO_TEMPLATE_FIX = "data.chat_template=chatml, data.chat_template=plain or data.chat_template=FILE"
_FOLDER = Path(__file__).with_name("chat_templates")
_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_SAID = ("reasoning_content", "thinking", "reasoning", "content", "tool_calls")  # keys of a message
_PLACEHOLDER = "\ue000"  # of Unicode's private use: no template treats it in a special way
_OTHER_TEMPLATE_FIX = "data.chat_template=chatml, or a template with {% generation %} marks"

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Conversation:
    """A conversation written out, and where in it the model speaks."""

    text: str  # as the template renders it
    # [start, end) of each answer in `text`, in characters, in order; none: only context.
    answers: list[tuple[int, int]]
    content: str  # what is said, however it is rendered
    is_rendered: bool  # by a chat template, which writes its own separators; else a prompt and its completion


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template that writes conversations, and finds the answers in what it writes.

    Its `{% generation %}` marks tell the answers, if it has any. If not, an answer is what the conversation
    up to it has more than the conversation before it with the generation prompt: exactly what the model is to
    write there. Where the template has no generation prompt, or nothing comes before the answer, it begins
    behind the header of its turn. (A turn of nothing but tool calls is then an answer as a whole.)

    An answer ends with its end-of-turn token; white space behind is the template's. Of marks that leave that
    token out, the last one is extended to it, so that the end of a turn is always learnt.
    """

    source: str
    # Whose special tokens the template writes; asked at the first conversation.
    tokenizer: PreTrainedTokenizerFast
    special_tokens: list[str]  # that the tokenizer must have
    eos_token: str | None  # that ends a turn, if that is to be the tokenizer's end-of-text token

    @classmethod
    def load(cls, name: str | None, tokenizer: PreTrainedTokenizerFast) -> Self:
        """The tokenizer's own template (None), a shipped one (`chatml`, `plain`) or a file's. Raises
        UserError.
        """
        tokens, end = SHIPPED.get(name or "", ([], None))
        if name is None:
            source, where = _own_template(tokenizer), "the tokenizer's chat template"
        elif name in SHIPPED:
            source, where = (_FOLDER / f"{name}.jinja").read_text("utf-8"), name
        else:
            source, where = _read(name), name
        try:
            render_jinja_template([], chat_template=source)  # compiles it
        except jinja2.TemplateSyntaxError as error:
            what = f"the chat template is no valid jinja: {error.message}"
            raise UserError(what, f"{where}, line {error.lineno}", NO_TEMPLATE_FIX) from error
        return cls(source, tokenizer, list(tokens), end)

    def render(self, messages: Messages, tools: list[dict] | None = None, first: int = 0) -> Conversation:
        """A conversation, in which assistant turns before message number `first` are context. Raises
        UserError.
        """
        if self._is_marked:
            text, answers = self._write(messages, tools, marked=True)
            if any(message["role"] == "assistant" for message in messages[:first]):
                answers = answers[len(self._write(messages[:first], tools, marked=True)[1]) :]
        else:
            text, _ = self._write(messages, tools)
            turns = [i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"]
            answers = [self._turn(messages, i, tools, text) for i in turns]
        answers = [
            (start, self._end(text, start, end, i == len(answers)))
            for i, (start, end) in enumerate(answers, 1)
        ]
        return Conversation(
            text, [(start, end) for start, end in answers if start < end], _said(messages), True
        )

    def _turn(self, messages: Messages, i: int, tools: list[dict] | None, text: str) -> tuple[int, int]:
        """[start, end) of message i, which is the assistant's, in the text of all."""
        upto = text if i + 1 == len(messages) else self._write(messages[: i + 1], tools)[0]
        _must_begin(text, upto, i)
        before = self._write(messages[:i], tools, prompted=True)[0] if i else ""
        _must_begin(upto, before, i)
        turn, content = upto[len(before) :], messages[i].get("content", "").strip()
        is_all_said = self._without_end(turn).strip() == content
        if not is_all_said and (not i or before == self._write(messages[:i], tools)[0]):  # there is no prompt
            return len(before) + self._header(messages[: i + 1], tools, before, turn), len(upto)
        return len(before), len(upto)

    def _header(self, messages: Messages, tools: list[dict] | None, before: str, turn: str) -> int:
        """Characters of the last turn before what is said in it: those before a placeholder said in its
        stead.
        """
        said = {
            key: _PLACEHOLDER for key in _SAID if messages[-1].get(key) and isinstance(messages[-1][key], str)
        }
        text, _ = self._write([*messages[:-1], {**messages[-1], **said}], tools)
        header, found, _ = text.removeprefix(before).partition(_PLACEHOLDER)
        if said and not (found and turn.startswith(header)):
            what = f"the chat template has no generation prompt, and where message {len(messages)} begins is not clear"
            raise UserError(what, fix=_OTHER_TEMPLATE_FIX)
        return len(header) if said and header.strip() else 0

    def _end(self, text: str, start: int, end: int, is_last: bool) -> int:
        """Where an answer ends: with its end of turn, without the white space behind."""
        body = text[start:end].rstrip()
        if body.endswith(self._specials):
            return start + len(body)
        behind = self._only_an_end.fullmatch(text, end) if is_last else None
        return behind.end(1) if behind else end

    def _without_end(self, turn: str) -> str:
        turn = turn.rstrip()
        return next((turn.removesuffix(token) for token in self._specials if turn.endswith(token)), turn)

    def _write(
        self, messages: Messages, tools: list[dict] | None, prompted: bool = False, marked: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text, and what of it is marked as generated."""
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
            raise UserError(what, fix="mend the row, or give another data.chat_template") from error
        return texts[0], marks[0] if marked else []  # pyright: ignore[reportReturnType] (it is annotated as one text)

    @cached_property
    def _is_marked(self) -> bool:
        return _MARK.search(self.source) is not None

    @cached_property
    def _variables(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _specials(self) -> tuple[str, ...]:
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        return tuple(sorted({*added, *self.tokenizer.all_special_tokens}))

    @cached_property
    def _only_an_end(self) -> re.Pattern[str]:
        """White space and special tokens; group 1: up to the first of these tokens, or all."""
        special = "|".join(map(re.escape, self._specials)) or "(?!)"
        return re.compile(rf"(\s*(?:{special}|\Z))(?:\s|{special})*")


def _must_begin(text: str, beginning: str, i: int) -> None:
    if not text.startswith(beginning):
        at = next((at for at, (a, b) in enumerate(zip(text, beginning, strict=False)) if a != b), len(text))
        there, here = text[at : at + 20], beginning[at : at + 20]
        what = (
            f"the chat template writes message {i + 1}, or what precedes it, in another way when more follows"
        )
        what += f": {there!r} instead of {here!r} at character {at + 1}"
        raise UserError(what, fix=_OTHER_TEMPLATE_FIX)


def _said(messages: Messages) -> str:
    values = [message[key] for message in messages for key in _SAID if key in message]
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
    path, where = expanded(name), f"data.chat_template={name}"
    if not path.exists():
        what = f"no chat template '{name}'{did_you_mean(name, SHIPPED)}, and no such file"
        raise UserError(what, where, NO_TEMPLATE_FIX)
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the chat template cannot be read: {reason}", where, NO_TEMPLATE_FIX) from error
