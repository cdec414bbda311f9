"""Chat templates: they render a conversation as text, and find the assistant's answers in it."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import jinja2
from transformers import PreTrainedTokenizerFast

from lmft.data.formats.chat.answer_ends import AnswerEnds
from lmft.data.formats.chat.conversation import Chat, Conversation, Messages
from lmft.data.formats.chat.rendering import Rendering, TrackedTemplate, as_seen, variables_of
from lmft.data.formats.chat.turns import CONTENTS, Answer, Turns
from lmft.data.sources.files import expanded
from lmft.errors import UserError, did_you_mean

# Special tokens that each template of ours needs, and the one that ends a turn.
SHIPPED = {"chatml": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"), "plain": ([], None)}
NO_TEMPLATE_FIX = "data.chat_template=chatml, data.chat_template=plain or data.chat_template=FILE"
_FOLDER = Path(__file__).with_name("templates")
_MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_GIVEN = {"messages", "tools", "documents", "add_generation_prompt"}  # to every template


@dataclass(frozen=True)
class ChatTemplate:
    """A jinja template that renders conversations, and finds the answers in the text.

    `Turns` tells where an answer begins, and `AnswerEnds` where it ends.
    """

    source: str
    # Has the special tokens that the template writes; read at the first conversation.
    tokenizer: PreTrainedTokenizerFast
    special_tokens: list[str]  # that the tokenizer must have
    eos_token: str | None  # that ends a turn, if it has to be the tokenizer's end-of-text token

    @classmethod
    def load(
        cls,
        name: str | None,
        tokenizer: PreTrainedTokenizerFast,
        variables: Mapping[str, Any] | None = None,
    ) -> Self:
        """Load a template: the tokenizer's own (None), one of ours (`chatml`, `plain`) or a file.

        `variables` are written into it as defaults of its variables, so that whoever renders a chat
        with it, from a probe to the exported folder, gets what training got.

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
            variables_of(source)  # reads all of it
        except jinja2.TemplateSyntaxError as error:
            where = name or "the tokenizer's chat template"
            what = f"the chat template is not valid jinja: {error.message}"
            raise UserError(what, f"{where}, line {error.lineno}", NO_TEMPLATE_FIX) from error
        template = cls(source, tokenizer, list(tokens), end)
        if not variables:
            return template
        template.check_variables(variables, "data.chat_template_kwargs")
        return replace(template, source=_with_defaults(source, variables))

    def check_variables(self, variables: Mapping[str, Any], where: str | None = None) -> None:
        """Raise UserError for variables that the template does not read, or that it is given anyway."""
        given = {*_GIVEN, *self.tokenizer.special_tokens_map}
        known = self._variables - given
        for name in variables:
            if name not in known:
                what = f"the chat template has no variable '{name}' to set{did_you_mean(name, known)}"
                fix = f"one that it reads: {', '.join(sorted(known))}" if known else "leave it out"
                raise UserError(what, where, fix)

    def render(self, chat: Chat) -> Conversation:
        """Render a conversation as one text, and find its answers. Raises: UserError."""
        turns = self._turns(chat, chat.messages)
        answers = turns.answers(chat.answers)
        conversation = _conversation(turns, turns.text, answers, chat.messages)
        return replace(conversation, num_missing=len(chat.answers) - len(answers))

    def text(self, chat: Chat) -> str:
        """Render a conversation without looking for its answers. Raises: UserError."""
        messages, variables = self._inputs(chat, chat.messages)
        with _reported():
            return self._tracked.text(messages, {**variables, "add_generation_prompt": False})

    def render_each(self, chat: Chat) -> list[Conversation]:
        """Render each answer after the messages before it, as the model gets them.

        A template may write messages differently once more follows. Here the text before an answer is
        what it writes while the answer is still to come.

        Returns: a text for each answer; if the conversation has none, its text without an answer.

        Raises: UserError.
        """
        conversations = [self._render_answer(chat, i) for i in chat.answers]
        found = [conversation for conversation in conversations if conversation.answers]
        if not found:
            return [self.render(chat)]
        found[0] = replace(found[0], num_missing=len(conversations) - len(found))
        return found

    def _render_answer(self, chat: Chat, i: int) -> Conversation:
        """Render the messages up to number i, which is the only answer."""
        messages = chat.messages[: i + 1]
        try:
            turns = self._turns(chat, messages)
        except UserError:  # some templates want a question, which may come later
            turns = self._turns(chat, chat.messages)
        answers = turns.answers([i])
        text = turns.text
        if answers and len(turns.messages) > len(messages):
            text = text[: answers[0].spans[-1][1]]
        before = turns.before(i)
        if answers and before is not None and not text.startswith(before):
            (answer,) = answers
            history = before.removesuffix(turns.generation_prompt(i))
            text = history + text[answer.header :]
            moved = len(history) - answer.header
            spans = [(start + moved, end + moved) for start, end in answer.spans]
            answers = [replace(answer, spans=spans)]
        conversation = _conversation(turns, text, answers, messages)
        return replace(conversation, whole=_contents(chat.messages))

    def _turns(self, chat: Chat, messages: Messages) -> Turns:
        messages, variables = self._inputs(chat, messages)

        def write(messages: Messages, prompted: bool) -> Rendering:
            with _reported():
                return self._tracked.render(messages, {**variables, "add_generation_prompt": prompted})

        def text_of(messages: Messages, prompted: bool) -> str:
            with _reported():
                return self._tracked.text(messages, {**variables, "add_generation_prompt": prompted})

        return Turns(write, text_of, messages, self._is_marked, self._ends)

    def _inputs(self, chat: Chat, messages: Messages) -> tuple[Messages, dict[str, Any]]:
        """Return messages, and a chat's tools and variables, as the template is given them."""
        if chat.variables:
            self.check_variables(chat.variables)
        messages, tools = as_seen(messages, chat.tools)
        return messages, {**self._special_tokens, **chat.variables, "tools": tools, "documents": None}

    @cached_property
    def _special_tokens(self) -> dict[str, Any]:
        return dict(self.tokenizer.special_tokens_map)

    @cached_property
    def _tracked(self) -> TrackedTemplate:
        return TrackedTemplate(self.source)

    @cached_property
    def _is_marked(self) -> bool:
        return _MARK.search(self.source) is not None

    @cached_property
    def _variables(self) -> set[str]:
        return variables_of(self.source)

    @cached_property
    def _ends(self) -> AnswerEnds:
        added = [
            token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special
        ]
        specials = sorted({*added, *self.tokenizer.all_special_tokens})
        eos: Any = self.tokenizer.eos_token
        return AnswerEnds(specials, eos)


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what a template raises into a UserError."""
    try:
        yield
    except Exception as error:  # a template is a program: it can fail in any way
        verb = "refuses" if type(error) is jinja2.TemplateError else "fails on"
        reason = " ".join(str(error).split())
        what = f"the chat template {verb} the conversation: {reason}"
        raise UserError(what, fix="fix the row, or give another data.chat_template") from error


def _conversation(turns: Turns, text: str, answers: list[Answer], messages: Messages) -> Conversation:
    return Conversation(
        text,
        [span for answer in answers for span in answer.spans],
        _contents(messages),
        is_rendered=True,
        num_last=len(answers[-1].spans) if answers else 1,
        num_unprompted=sum(not answer.is_prompted for answer in answers),
        speakers=turns.speakers if turns.text.startswith(text) else [],
    )


def _contents(messages: Messages) -> str:
    values = [message[key] for message in messages for key in CONTENTS if key in message]
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    )


def _with_defaults(source: str, variables: Mapping[str, Any]) -> str:
    """Return a template with values for variables that are not given.

    jinja removes the line break after a tag, so the template itself is read as before.
    """
    defaults = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}"
        for name, value in variables.items()
    )
    return f"{defaults}\n{source}"


def _literal(value: Any) -> str:
    """Return a value as jinja writes it."""
    if isinstance(value, Mapping):
        entries = ", ".join(f"{_literal(key)}: {_literal(entry)}" for key, entry in value.items())
        return f"{{{entries}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if value is None:
        return "none"
    return json.dumps(value)


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
