"""The targets of chats: exactly what the chat template writes for each answer, decoded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2
import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.assembly.parts import Parts
from lmft.data.config import DataConfig
from lmft.data.datamodule import Batches
from lmft.data.examples.documents import TRAIN_ON, Documents
from lmft.data.examples.windows import Lines
from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.format import chat_template
from lmft.data.formats.chat.layouts import Row, layout_of
from lmft.data.formats.chat.rows import RowReader
from lmft.data.formats.chat.tools import Arguments
from lmft.data.schedule.sampler import MicroBatch
from lmft.data.sources.cleaning import clean_rows
from lmft.data.sources.reading import unescaped
from lmft.data.training_texts import training_source
from lmft.objectives.causal import NextToken
from lmft.verification.check import Check, does_not_apply, holds
from lmft.verification.rows import rows_of
from lmft.verification.subject import Subject

NAME = "chat targets are the answers"
_NUM_CHATS = 64
_NUM_SHOWN = 3
_LONGEST_SHOWN = 300  # characters
_TELLING = 12  # a shorter message may be part of an answer by chance


@dataclass(frozen=True)
class Expected:
    """The answers of a document that are to be learnt, found without lmft's search for them."""

    answers: list[str]
    """What transformers' rendering has more with an answer than with the prompt before it."""
    others: list[str]
    """Messages that are no answer."""
    is_exact: bool
    """Whether a rendering with the answer begins with that of its prompt; else only texts are known."""


def chat_targets(subject: Subject) -> Iterator[Check]:
    """Decode the targets of the first chats, and compare with what the template writes for answers."""
    parts = subject.parts
    objective = parts.objective.at(0.0)
    chats = {name: config for name, config in _sources(parts).items() if config.kind == "chat"}
    if not chats:
        yield does_not_apply(NAME, "the text holds no conversations")
    for source, config in chats.items():
        name = f"{NAME} ({source})" if source else NAME
        if config.train_on == "all":
            yield does_not_apply(name, "every token is learnt (data.train_on=all)")
        elif type(objective) is not NextToken:
            what = f"{type(objective).__name__} does not predict answers as they are"
            yield does_not_apply(name, what)
        else:
            yield _of_source(subject, name, source, config)


def _sources(parts: Parts) -> Mapping[str, DataConfig]:
    sources = parts.data.by_source() or {"": parts.data}
    return {name: config for name, config in sources.items() if _split(name) in parts.corpus.documents}


def _split(source: str) -> str:
    return f"train/{source}" if source else "train"


def _of_source(subject: Subject, name: str, source: str, config: DataConfig) -> Check:
    tokenizer = subject.parts.tokenizer
    expected = list(islice(_expected(subject.parts, config), _NUM_CHATS))
    found = _targets(subject, _split(source), config, len(expected))
    num_answers = 0
    num_tokens = 0
    shown: list[str] = []
    for number, (answers, targets) in enumerate(zip(expected, found, strict=True), 1):
        decoded = [_decoded(tokenizer, ids) for ids in targets]
        if reason := _difference(tokenizer, answers, decoded):
            details = tuple(f"target: {_shortened(text)}" for text in decoded[:_NUM_SHOWN])
            return holds(name, False, f"chat {number}: {reason}", details)
        num_answers += len(answers.answers)
        num_tokens += sum(map(len, targets))
        shown += decoded[: _NUM_SHOWN - len(shown)]
    if not num_answers:
        return does_not_apply(name, f"the first {len(expected)} chats have no answer to learn")
    num_inexact = sum(not answers.is_exact for answers in expected)
    figure = f"{num_answers} answers of {len(expected)} chats, {num_tokens} targets"
    if num_inexact:
        figure += f"; of {num_inexact} chats, which the template rewrites, the texts alone are compared"
    return holds(name, True, figure, tuple(f"target: {_shortened(text)}" for text in shown))


def _targets(subject: Subject, split: str, config: DataConfig, count: int) -> Iterator[list[list[int]]]:
    """Yield the targets of the first documents, in stretches that follow each other."""
    parts = subject.parts
    store = parts.corpus.documents[split].store
    for number in range(count):
        documents = Documents(store, np.array([number]), TRAIN_ON[config.train_on])
        lines = Lines(documents, int(documents.lengths[0]), parts.vocabulary.pad_id)
        if not len(lines):
            yield []
            continue
        batches = Batches(lines, parts.objective, parts.vocabulary, parts.config["seed"], "train")
        chosen = np.zeros(1, np.int64)
        (row,) = rows_of(batches[MicroBatch(0, chosen)], lines.rows(chosen))
        cuts = np.flatnonzero(np.diff(row.columns) != 1) + 1
        yield [stretch.tolist() for stretch in np.split(row.targets, cuts) if len(stretch)]


def _expected(parts: Parts, config: DataConfig) -> Iterator[Expected]:
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


def _difference(tokenizer: PreTrainedTokenizerFast, expected: Expected, found: list[str]) -> str | None:
    """Return how the decoded targets differ from the answers, whatever their white space."""
    learnt = _squeezed("".join(found))
    wanted = [_squeezed(_given_back(tokenizer, answer)) for answer in expected.answers]
    end = str(tokenizer.eos_token or "")
    if expected.is_exact:
        whole = "".join(wanted)
        if learnt in (whole, whole + end):  # lmft ends an answer that the template leaves open
            return None
        place = next(
            (i for i, (a, b) in enumerate(zip(learnt, whole, strict=False)) if a != b),
            min(len(learnt), len(whole)),
        )
        near = max(0, place - 10)
        return f"'{learnt[near : near + 40]}' is learnt for '{whole[near : near + 40]}'"
    for answer in wanted:
        if answer not in learnt:
            return f"the answer '{answer[:40]}' is not learnt"
    for other in expected.others:
        squeezed = _squeezed(_given_back(tokenizer, other))
        is_quoted = any(squeezed in answer for answer in wanted)
        if len(squeezed) >= _TELLING and squeezed in learnt and not is_quoted:
            return f"'{squeezed[:40]}' is learnt, which is no answer"
    return None


def _given_back(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """Return what of a text the vocabulary gives back."""
    return _decoded(tokenizer, tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _decoded(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
