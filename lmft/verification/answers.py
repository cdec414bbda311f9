"""The answers of chats that are to be learnt, by transformers' own renderings of the chat template."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerFast

from lmft.assembly.parts import Parts
from lmft.data.config import DataConfig
from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.format import chat_template
from lmft.data.formats.chat.layouts import Row, layout_of
from lmft.data.formats.chat.rows import RowReader
from lmft.data.formats.chat.tools import Arguments
from lmft.data.sources.cleaning import clean_rows
from lmft.data.sources.reading import unescaped
from lmft.data.training_texts import training_source


@dataclass(frozen=True)
class Expected:
    """The answers of a document that are to be learnt, found without lmft's search for them."""

    answers: list[str]
    """What transformers' rendering has more with an answer than with the prompt before it."""
    others: list[str]
    """Messages that are not answers."""
    is_exact: bool
    """Whether a rendering with the answer begins with that of its prompt; else only texts are known."""


def expected_answers(parts: Parts, config: DataConfig) -> Iterator[Expected]:
    """Yield the answers of each document of the training text."""
    template = None
    if config.format != "marked_text":
        template = chat_template(config, parts.tokenizer)
    arguments = Arguments(template) if template else None
    reader = RowReader(config, template)

    def read(values: dict[str, Any]) -> list[Expected] | None:
        found = reader.read(values)
        if found is None:
            return None
        if config.format == "marked_text":
            return [_of_marked(config, found.conversations[0].text)]
        row = Row(values, config.columns, unescaped(config.join.columns))
        layout = layout_of(row, config.format)
        chat = None if layout is None else layout.read(row)
        if not isinstance(chat, Chat):
            return [Expected([str(row.take("completion"))], [], is_exact=False)]
        if arguments is not None:
            chat = arguments.fitted(chat)
        return _of_chat(parts.tokenizer, chat, config)

    source = training_source(config)
    for _, expected in clean_rows(source, read, source.tally()):
        yield from expected


def _of_chat(tokenizer: PreTrainedTokenizerFast, chat: Chat, config: DataConfig) -> list[Expected]:
    """Return what is to be learnt of a chat: of its one document, or of one for each answer."""
    numbers = chat.answers
    if config.train_on == "last_turn":
        numbers = numbers[-1:]
    groups = [numbers]
    if config.turns == "each" and numbers:
        groups = [[number] for number in numbers]
    others = [
        str(message.get("content") or "")
        for i, message in enumerate(chat.messages)
        if i not in chat.answers
    ]
    return [_of_answers(tokenizer, chat, group, others, config) for group in groups]


def _of_answers(
    tokenizer: PreTrainedTokenizerFast,
    chat: Chat,
    numbers: list[int],
    others: list[str],
    config: DataConfig,
) -> Expected:
    written = []
    for number in numbers:
        last = number + 1 if config.turns == "each" else len(chat.messages)
        answer = _written_for(tokenizer, chat, number, last)
        if answer is None:
            texts = [str(chat.messages[each].get("content") or "") for each in numbers]
            return Expected(texts, others, is_exact=False)
        written.append(answer)
    return Expected(written, others, is_exact=True)


def _written_for(tokenizer: PreTrainedTokenizerFast, chat: Chat, number: int, last: int) -> str | None:
    """Return what a rendering has more with an answer than with the prompt before it.

    None if the renderings do not continue each other.
    """
    try:
        prompt = _rendered(tokenizer, chat, number, prompts=True)
        answered = _rendered(tokenizer, chat, number + 1, prompts=False)
        whole = _rendered(tokenizer, chat, last, prompts=False)
    except (jinja2.TemplateError, TypeError, ValueError):  # a template may refuse a part of a chat
        return None
    if not answered.startswith(prompt) or not whole.startswith(answered.rstrip()):
        return None
    return answered[len(prompt) :]


def _rendered(tokenizer: PreTrainedTokenizerFast, chat: Chat, count: int, prompts: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            chat.messages[:count],
            tools=chat.tools,  # pyright: ignore[reportArgumentType]
            tokenize=False,
            add_generation_prompt=prompts,
            **chat.variables,
        )
    )


def _of_marked(config: DataConfig, text: str) -> Expected:
    """Return the answers of a text with markers: what follows each, up to the next marker."""
    _, *pieces = text.split(unescaped(str(config.response_template)))
    answers = pieces
    if config.instruction_template is not None:
        question = unescaped(config.instruction_template)
        answers = [piece.split(question)[0] for piece in pieces]
    if config.train_on == "last_turn":
        answers = answers[-1:]
    return Expected(answers, [], is_exact=False)
