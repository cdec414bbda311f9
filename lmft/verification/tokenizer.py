"""The tokens of the text: those of the plain tokenizer, from which the text comes back."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from lmft.verification.check import Check, does_not_apply, holds
from lmft.verification.documents import Read, first_documents
from lmft.verification.subject import Subject

NUM_DOCUMENTS = 64


def round_trip(subject: Subject) -> Iterator[Check]:
    """Decode the tokens of the first documents, and tokenise what comes out."""
    name = "tokenizer's round trip"
    tokenizer = subject.parts.tokenizer
    num_characters = 0
    num_returned = 0
    num_respaced = 0
    texts = [text for read in first_documents(subject.parts, NUM_DOCUMENTS) for text in read.texts]
    if not texts:
        yield does_not_apply(name, "the first documents are longer than 20,000 characters")
        return
    for text in texts:
        ids = plain_ids(tokenizer, text)
        decoded = _decoded(tokenizer, ids)
        again = plain_ids(tokenizer, decoded)
        if again != ids and _without_space(tokenizer, again) != _without_space(tokenizer, ids):
            yield _changed(name, tokenizer, ids, again)
            return
        num_respaced += again != ids
        num_characters += _visible(text).total()
        num_returned += (_visible(text) & _visible(decoded)).total()
    share = num_returned / max(1, num_characters)
    figure = f"{len(texts)} texts decode to the same tokens; {share:.1%} of their characters come back"
    if num_respaced:
        figure += f"; in {num_respaced} texts tokens of white space alone do not"
    yield holds(name, True, figure)


def _changed(name: str, tokenizer: PreTrainedTokenizerFast, ids: list[int], again: list[int]) -> Check:
    place = _first_difference(ids, again)
    details = (
        f"text: {_excerpt(tokenizer, ids, place)}",
        f"after decoding: {_excerpt(tokenizer, again, place)}",
    )
    return holds(name, False, f"token {place + 1} of a text is another one afterwards", details)


def _without_space(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[int]:
    """Return tokens without those of white space alone: decoders drop a text's first, before `<unk>`."""
    return [token for token in ids if _decoded(tokenizer, [token]).strip()]


def stored_tokens(subject: Subject) -> Iterator[Check]:
    """Compare the stored tokens of the first documents with those of the plain tokenizer."""
    name = "stored tokens are the tokenizer's"
    tokenizer = subject.parts.tokenizer
    num_documents = 0
    num_tokens = 0
    for read in first_documents(subject.parts, NUM_DOCUMENTS):
        if reason := _difference(tokenizer, read):
            yield holds(name, False, f"{read.name}: {reason}")
            return
        num_documents += 1
        num_tokens += len(read.tokens)
    if not num_documents:
        yield does_not_apply(name, "the first documents are longer than 20,000 characters")
        return
    yield holds(name, True, f"{num_tokens} tokens of {num_documents} documents")


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str, separated: bool = False) -> list[int]:
    """Return a text's tokens, perhaps with the separators of the tokenizer's template around it."""
    return tokenizer(text, add_special_tokens=separated, truncation=False, verbose=False)["input_ids"]


def _difference(tokenizer: PreTrainedTokenizerFast, read: Read) -> str | None:
    """Return how the stored tokens of a document differ from the plain tokenizer's."""
    stored = read.tokens.tolist()
    if read.kind == "chat":  # whose separators the chat template writes
        ids = plain_ids(tokenizer, read.texts[0])
        first = _place_of(ids, stored)
        around = [] if first is None else stored[:first] + stored[first + len(ids) :]
        if first is not None and set(around) <= set(tokenizer.all_special_ids):
            return None
        return _told(tokenizer, stored, ids)
    expected = _ended(tokenizer, read.texts[0])
    if read.kind == "pairs":
        target = _ended_target(tokenizer, read.texts[1])
        expected = expected + target
        is_target = np.arange(len(stored)) >= len(stored) - len(target)
        if len(stored) == len(expected) and not np.array_equal(read.is_answer, is_target):
            return "its target's tokens are not those that are learnt"
    return None if stored == expected else _told(tokenizer, stored, expected)


def _ended(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return a text's tokens with separators, and its end if the tokenizer's template has none."""
    return _with_end(tokenizer, plain_ids(tokenizer, text, separated=True), plain_ids(tokenizer, text))


def _ended_target(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    options = {"text_target": text, "truncation": False, "verbose": False}
    bare = tokenizer(**options, add_special_tokens=False)["input_ids"]
    return _with_end(tokenizer, tokenizer(**options)["input_ids"], bare)


def _with_end(tokenizer: PreTrainedTokenizerFast, ids: list[int], bare: list[int]) -> list[int]:
    end: Any = tokenizer.eos_token_id
    is_ended = bool(bare) and ids[-len(bare) :] != bare
    return ids if is_ended or end is None else [*ids, int(end)]


def _place_of(ids: list[int], within: list[int]) -> int | None:
    for first in range(len(within) - len(ids) + 1):
        if within[first : first + len(ids)] == ids:
            return first
    return None


def _told(tokenizer: PreTrainedTokenizerFast, stored: list[int], expected: list[int]) -> str:
    place = _first_difference(stored, expected)
    shown = _excerpt(tokenizer, stored, place)
    wanted = _excerpt(tokenizer, expected, place)
    return f"from token {place + 1} on '{shown}' is stored for '{wanted}'"


def _first_difference(one: list[int], other: list[int]) -> int:
    same = (mine == its for mine, its in zip(one, other, strict=False))
    return next((i for i, is_same in enumerate(same) if not is_same), min(len(one), len(other)))


def _excerpt(tokenizer: PreTrainedTokenizerFast, ids: list[int], place: int) -> str:
    return _decoded(tokenizer, ids[place : place + 6])


def _decoded(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _visible(text: str) -> Counter[str]:
    """Return how often each character other than white space occurs, whatever its case."""
    return Counter(character for character in text.casefold() if not character.isspace())
