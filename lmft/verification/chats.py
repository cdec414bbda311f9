"""The targets of chats: exactly what the chat template writes for each answer, decoded."""

from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.assembly.parts import Parts
from lmft.data.batches import Batches
from lmft.data.config import DataConfig
from lmft.data.examples.documents import TRAIN_ON, Documents
from lmft.data.examples.windows import Lines
from lmft.data.schedule.sampler import MicroBatch
from lmft.objectives.causal import NextToken
from lmft.verification.answers import Expected, expected_answers
from lmft.verification.check import Check, does_not_apply, holds
from lmft.verification.rows import rows_of
from lmft.verification.subject import Subject

NAME = "chat targets are the answers"
_NUM_CHATS = 64
_NUM_SHOWN = 3
_LONGEST_SHOWN = 300  # characters
_TELLING = 12  # a shorter message may be part of an answer by chance


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
    expected = list(islice(expected_answers(subject.parts, config), _NUM_CHATS))
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
            return f"'{squeezed[:40]}' is learnt, but is not an answer"
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
