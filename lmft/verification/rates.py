"""Count the tokens that each objective hides in a batch, and compute the number expected from its rates.

Counting reads inputs and targets alone. Expectations are computed from the rates and the lengths of the
texts, and share no code with the objectives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from lmft.objectives.base import Objective
from lmft.objectives.fim import FillInTheMiddle
from lmft.objectives.masking import Masking
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from lmft.objectives.whole_word import MaskedWords
from lmft.verification.restoring import Tokens, is_of_lmft
from lmft.verification.rows import Row


@dataclass(frozen=True)
class Count:
    """Holds what was counted in one row."""

    found: float
    expected: float
    out_of: float


@dataclass(frozen=True)
class Rate:
    """A configured rate, and how to count it in a row."""

    option: str
    """The option that sets it: `mlm_probability`."""
    configured: float
    what: str
    """What is counted: `tokens hidden`."""
    count: Callable[[Row, Tokens], Count]
    is_share: bool = True
    """Whether it is shown in percent."""


def rates_of(objective: Objective) -> list[Rate]:
    """Return the rates of an objective; none if it hides nothing at a rate, or is the user's own."""
    if not is_of_lmft(objective):
        return []
    if isinstance(objective, Masking):
        return _masking(objective)
    if isinstance(objective, SpanCorruption):
        return _span_corruption(objective)
    if isinstance(objective, TextInfilling):
        return [_infilling(objective)]
    if isinstance(objective, FillInTheMiddle):
        return _fim(objective)
    return []


def _masking(objective: Masking) -> list[Rate]:
    rate = objective.mlm_probability
    is_by_words = isinstance(objective, MaskedWords)

    def hidden(row: Row, tokens: Tokens) -> Count:
        candidates = _candidates(row, tokens)
        draws = int((row.begins_word & candidates).sum()) if is_by_words else int(candidates.sum())
        num_candidates = int(candidates.sum())
        # Where nothing was drawn, one token or word is hidden all the same.
        none_drawn = (1 - rate) ** max(1, draws)
        expected = rate * num_candidates + none_drawn * num_candidates / max(1, draws)
        return Count(len(row.columns), expected if num_candidates else 0.0, num_candidates)

    def shown_as_mask(row: Row, tokens: Tokens) -> Count:
        shown = row.shown[_places(row)]
        num = len(row.targets)
        return Count(int((shown == tokens.mask_id).sum()), objective.mask_share * num, num)

    def shown_as_random(row: Row, tokens: Tokens) -> Count:
        shown = row.shown[_places(row)]
        num = len(row.targets)
        is_random = (shown != tokens.mask_id) & (shown != row.targets)
        by_chance_the_same = 1 / max(1, tokens.num_ordinary)
        expected = objective.random_share * num * (1 - by_chance_the_same)
        return Count(int(is_random.sum()), expected, num)

    unit = "words" if is_by_words else "tokens"
    return [
        Rate("mlm_probability", rate, f"{unit} hidden", hidden),
        Rate("mask_share", objective.mask_share, "of them shown as the mask token", shown_as_mask),
        Rate("random_share", objective.random_share, "of them shown as a random token", shown_as_random),
    ]


def _span_corruption(objective: SpanCorruption) -> list[Rate]:
    density = objective.noise_density
    mean_length = objective.mean_noise_span_length

    def hidden_of(row: Row, tokens: Tokens) -> tuple[int, int]:
        num_spans = int(np.isin(row.targets, tokens.sentinels).sum())
        return len(row.targets) - num_spans - 1, num_spans

    def hidden(row: Row, tokens: Tokens) -> Count:
        num_hidden, _ = hidden_of(row, tokens)
        length = len(row.shown) - 1 - int(np.isin(row.shown, tokens.sentinels).sum()) + num_hidden
        expected = min(max(np.rint(length * density), 1), length - 1)
        return Count(num_hidden, expected, length)

    def spans(row: Row, tokens: Tokens) -> Count:
        num_hidden, num_spans = hidden_of(row, tokens)
        length = len(row.shown) - 1 - num_spans + num_hidden
        expected = min(max(np.rint(num_hidden / mean_length), 1), length - num_hidden, num_hidden)
        return Count(num_spans, expected, num_hidden)

    return [
        Rate("noise_density", density, "tokens hidden", hidden),
        Rate(
            "mean_noise_span_length",
            1 / mean_length,
            "spans for each hidden token",
            spans,
            is_share=False,
        ),
    ]


def _infilling(objective: TextInfilling) -> Rate:
    shown_share = (1 - objective.mask_ratio) * (
        1 - objective.token_mask_ratio - objective.token_delete_ratio
    )

    def hidden(row: Row, tokens: Tokens) -> Count:
        num_text = int((~np.isin(row.text, list(tokens.special_ids))).sum())
        num_shown = int((~np.isin(row.shown, list(tokens.special_ids))).sum())
        return Count(num_text - num_shown, (1 - shown_share) * num_text, num_text)

    return Rate("mask_ratio", 1 - shown_share, "tokens hidden", hidden)


def _fim(objective: FillInTheMiddle) -> list[Rate]:
    def rearranged(row: Row, tokens: Tokens) -> Count:
        is_long = _longest_piece(row, tokens) >= 3
        return Count(int(_is_rearranged(row, tokens)), objective.fim_rate * is_long, int(is_long))

    def suffix_first(row: Row, tokens: Tokens) -> Count:
        if not _is_rearranged(row, tokens):
            return Count(0, 0, 0)
        pre, suf, _ = tokens.fim
        shown = row.inputs["input_ids"]
        found = int(shown[np.flatnonzero(shown == pre)[0] + 1] == suf)
        places = _longest_piece(row, tokens) + 1
        empty_prefix = 1 - ((places - 1) / places) ** 2  # the first of two cuts is at the beginning
        expected = objective.spm_share + (1 - objective.spm_share) * empty_prefix
        return Count(found, expected, 1)

    return [
        Rate("fim_rate", objective.fim_rate, "examples rearranged", rearranged),
        Rate("spm_share", objective.spm_share, "of them with the suffix first", suffix_first),
    ]


def _candidates(row: Row, tokens: Tokens) -> np.ndarray:
    """Return the tokens of the text that may be hidden. [L] bool"""
    return row.is_learnt & ~np.isin(row.text, list(tokens.special_ids))


def _places(row: Row) -> np.ndarray:
    return row.columns[row.columns < row.num_inputs]


def _is_rearranged(row: Row, tokens: Tokens) -> bool:
    middle = tokens.fim[2]
    return bool((row.inputs["input_ids"] == middle).sum() > (row.text == middle).sum())


def _longest_piece(row: Row, tokens: Tokens) -> int:
    """Return the length of the longest run of ordinary tokens of one document."""
    documents = row.documents
    if documents is None:
        documents = np.zeros(len(row.text), np.int64)
    marked = [
        None if int(token) in tokens.special_ids else int(document)
        for token, document in zip(row.text, documents, strict=True)
    ]
    runs: Iterator[tuple[int | None, int]] = (
        (document, len(list(run))) for document, run in groupby(marked)
    )
    return max((length for document, length in runs if document is not None), default=0)
