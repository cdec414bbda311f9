"""Put a batch's targets back into its inputs: the text has to come out, by each objective's own rule.

The functions return what is wrong with a row, or None. They follow the papers, token by token, and share
no code with the objectives.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.objectives.base import Objective
from lmft.objectives.causal import NextToken
from lmft.objectives.fim import FillInTheMiddle
from lmft.objectives.masking import Masking
from lmft.objectives.mixture import Mixture
from lmft.objectives.mlm import MaskedDenoising
from lmft.objectives.pairs import Pairs
from lmft.objectives.permutation import Permutation
from lmft.objectives.prefix_lm import PrefixLM
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from lmft.verification.rows import Row


@dataclass(frozen=True)
class Tokens:
    """Holds what the rules need to know of the tokenizer and the model."""

    special_ids: frozenset[int]
    mask_id: int | None
    end_id: int | None
    start_id: int | None  # of the decoder
    sentinels: Sequence[int]  # <extra_id_0>, <extra_id_1>, …
    num_ordinary: int  # tokens that are not special
    fim: Sequence[int]  # the tokens before prefix, suffix and middle


Rule = Callable[[Row, Tokens], str | None]


def rule_of(objective: Any) -> Rule | None:
    """Return the rule that rows of an objective follow; None for an objective of the user's own."""
    rules: tuple[tuple[type[Objective], Callable[[Any], Rule]], ...] = (
        (MaskedDenoising, lambda _: _masked_denoising),
        (Masking, lambda _: _masked),
        (FillInTheMiddle, lambda _: _fim),
        (NextToken, lambda _: _causal),
        (Permutation, lambda _: _permuted),
        (SpanCorruption, lambda _: _spans),
        (TextInfilling, _infilling),
        (PrefixLM, lambda _: _prefix),
        (Pairs, lambda _: _pairs),
        (Mixture, _any_of),
    )
    for kind, make in rules:
        if isinstance(objective, kind) and is_of_lmft(objective):
            return make(objective)
    return None


def is_of_lmft(objective: Objective) -> bool:
    """Return whether an objective is lmft's own; one derived from it may follow any rule."""
    return type(objective).__module__.partition(".")[0] == "lmft"


def _any_of(mixture: Any) -> Rule:
    """Return the rule that a row follows the rule of one of a mixture's objectives."""
    rules = [rule_of(objective) for objective in mixture.objectives]

    def rule(row: Row, tokens: Tokens) -> str | None:
        reasons = [each(row, tokens) for each in rules if each is not None]
        if None in reasons or len(reasons) < len(rules):
            return None
        return f"none of the mixture's objectives makes it; the first: {reasons[0]}"

    return rule


def _masked(row: Row, tokens: Tokens) -> str | None:
    """Targets stand where their tokens were; all other tokens are shown as they are."""
    text = row.text
    if row.num_inputs != len(text):
        return f"{row.num_inputs} tokens are read, and the text has {len(text)}"
    if len(set(row.columns.tolist())) != len(row.columns):
        return "a position has two targets"
    if (row.columns >= len(text)).any():
        return "padding is a target"
    for column in row.columns:
        if int(text[column]) in tokens.special_ids:
            return f"the special token at position {column + 1} is a target"
    if not row.is_learnt[row.columns].all():
        return "a token that is not to be learnt is a target"
    restored = row.shown.copy()
    restored[row.columns] = row.targets
    return _other(restored, text)


def _masked_denoising(row: Row, tokens: Tokens) -> str | None:
    """Check as `_masked` does; the decoder reads the whole text, one position later."""
    return _masked(row, tokens) or _decoder_reads(row, row.text, tokens)


def _causal(row: Row, tokens: Tokens) -> str | None:
    """Each token that may be learnt is predicted at the position before it, from the text itself."""
    if reason := _other(row.shown, row.text):
        return reason
    return _next_tokens(row, row.shown, row.is_learnt)


def _next_tokens(row: Row, text: np.ndarray, is_learnt: np.ndarray) -> str | None:
    expected = []
    for column in range(1, len(text)):
        begins = row.documents is not None and row.documents[column] != row.documents[column - 1]
        is_apart = begins and "document_ids" in row.inputs
        if is_learnt[column] and column >= row.num_seen and not is_apart:
            expected.append((column - 1, int(text[column])))
    found = list(zip(row.columns.tolist(), row.targets.tolist(), strict=True))
    if found == expected:
        return None
    if len(found) != len(expected):
        return f"{len(found)} targets, and {len(expected)} tokens have one before them"
    place = next(i for i, pair in enumerate(found) if pair != expected[i])
    return f"position {found[place][0] + 1} does not predict the token after it"


def _fim(row: Row, tokens: Tokens) -> str | None:
    """The text, or PRE prefix SUF suffix MID middle with a part of it; every next token is a target."""
    shown = row.inputs["input_ids"]
    pre, suf, mid = tokens.fim
    places = [np.flatnonzero(shown == token) for token in (pre, suf, mid)]
    in_text = [int((row.text == token).sum()) for token in (pre, suf, mid)]
    if [len(place) - count for place, count in zip(places, in_text, strict=True)] != [1, 1, 1]:
        return _causal(row, tokens)
    length = len(row.text) + len(tokens.fim)
    shown = shown[:length]
    begin, second, third = (int(place[0]) for place in places)
    prefix = shown[begin + 1 : second]
    suffix = shown[second + 1 : third]
    rest = shown[third + 1 :]
    for num_middle in range(len(rest) + 1):
        piece = [*prefix, *rest[:num_middle], *suffix]
        if [*shown[:begin], *piece, *rest[num_middle:]] == row.text.tolist():
            return None if len(row.columns) else "it has no target"
    return "prefix, middle and suffix do not make the text"


def _permuted(row: Row, tokens: Tokens) -> str | None:
    """Check as `_masked` does, with a query for each target; no two targets see each other."""
    mapping = row.inputs["target_mapping"]
    columns = mapping[row.columns].argmax(axis=1)
    in_order = Row(**{**vars(row), "columns": columns})
    if reason := _masked(in_order, tokens):
        return reason
    if not np.array_equal(mapping[row.columns].sum(axis=1), np.ones(len(columns))):
        return "a query asks for several positions"
    unseen = row.inputs["perm_mask"].astype(bool)
    is_target = np.isin(np.arange(len(unseen)), columns)
    among = unseen[np.ix_(columns, columns)]
    if not among.diagonal().all():
        return "a target sees itself"
    if (~among & ~among.T & ~np.eye(len(columns), dtype=bool)).any():
        return "two targets see each other"
    if unseen[:, ~is_target].any():
        return "a token that is not a target is hidden from a position"
    return None


def _spans(row: Row, tokens: Tokens) -> str | None:
    """The sentinels of the input, numbered in order, stand for the spans that follow them as targets."""
    text = _without_end(row, tokens)
    shown = row.shown.tolist()
    if shown[-1:] != [tokens.end_id] or row.targets[-1:].tolist() != [tokens.end_id]:
        return "input and targets do not both end with the end-of-text token"
    fills: dict[int, list[int]] = {}
    sentinels = set(tokens.sentinels)
    current: list[int] = []
    for token in row.targets[:-1].tolist():
        if token in sentinels:
            current = fills.setdefault(token, [])
        else:
            current.append(token)
    used = [token for token in shown[:-1] if token in sentinels]
    if used != list(tokens.sentinels[: len(used)]) or list(fills) != used:
        return "the sentinels are not in order, the same in input and targets"
    restored = []
    for token in shown[:-1]:
        restored += fills.get(token, [token])
    return _other(np.array(restored), text) or _decoder_reads(row, row.targets, tokens)


def _infilling(objective: Any) -> Rule:
    """Return the rule: the targets are the text, and the input shows tokens of it and masks."""

    def rule(row: Row, tokens: Tokens) -> str | None:
        if reason := _other(row.targets, row.text):
            return reason
        shown = [token for token in row.shown.tolist() if token != tokens.mask_id]
        if Counter(shown) - Counter(row.text.tolist()):
            return "the input shows tokens that the text does not have"
        if not objective.permute_sentences and not objective.rotate:
            left = iter(row.text.tolist())
            if not all(token in left for token in shown):
                return "the input shows tokens in another order"
        return _decoder_reads(row, row.targets, tokens)

    return rule


def _prefix(row: Row, tokens: Tokens) -> str | None:
    """Input and targets, each without its end, are the two parts of the text."""
    if row.shown[-1:].tolist() != [tokens.end_id] or row.targets[-1:].tolist() != [tokens.end_id]:
        return "input and targets do not both end with the end-of-text token"
    restored = np.array([*row.shown[:-1], *row.targets[:-1]])
    return _other(restored, _without_end(row, tokens)) or _decoder_reads(row, row.targets, tokens)


def _pairs(row: Row, tokens: Tokens) -> str | None:
    """The input is the source, and the targets are the target."""
    if reason := _other(row.shown, row.text[~row.is_answer]):
        return f"source: {reason}"
    if reason := _other(row.targets, row.text[row.is_answer]):
        return f"target: {reason}"
    return _decoder_reads(row, row.targets, tokens)


def _decoder_reads(row: Row, written: np.ndarray, tokens: Tokens) -> str | None:
    """Return what is wrong if the decoder does not read its start token and what it wrote so far."""
    expected = [tokens.start_id, *written[:-1].tolist()]
    if row.inputs["decoder_input_ids"][: len(written)].tolist() != expected:
        return "the decoder does not read its start token and then the tokens before each target"
    return None


def _without_end(row: Row, tokens: Tokens) -> np.ndarray:
    if row.is_line and row.text[-1] == tokens.end_id:
        return row.text[:-1]
    return row.text


def _other(found: np.ndarray, expected: np.ndarray) -> str | None:
    """Return where two sequences differ first; None if they are equal."""
    if len(found) != len(expected):
        return f"{len(found)} tokens come back, and the text has {len(expected)}"
    differs = np.flatnonzero(found != expected)
    return f"token {differs[0] + 1} comes back as another one" if len(differs) else None
