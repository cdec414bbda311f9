"""How much is hidden: the measured rates against the configured ones, with their sampling error."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import DataCollatorForPermutationLanguageModeling

from lmft.data.batches import Batches
from lmft.data.schedule.sampler import MicroBatch
from lmft.objectives.base import Objective
from lmft.objectives.causal import NextToken
from lmft.objectives.masking import Masking
from lmft.objectives.mixture import Mixture
from lmft.objectives.pairs import Pairs
from lmft.objectives.permutation import Permutation
from lmft.objectives.prefix_lm import PrefixLM
from lmft.verification.check import Check, does_not_apply, holds, within
from lmft.verification.rates import Count, Rate, rates_of
from lmft.verification.restoring import Tokens, is_of_lmft
from lmft.verification.rows import Row, rows_of
from lmft.verification.subject import Subject
from lmft.verification.targets import tokens_of

_NUM_ROWS = 500  # counted at least, in several epochs where there are fewer examples
_NUM_TOKENS = 200_000  # after which counting ends
_ERRORS = 5  # standard errors; further off by chance once in two million times
_ROUNDING = 1e-9  # of sums in float64
_ORIGIN = "5 standard errors, by the spread of the examples' counts"
_WITHOUT_RATE = {
    NextToken: "every token is predicted: nothing is hidden at a rate",
    Pairs: "the target is predicted: nothing is hidden at a rate",
    PrefixLM: "a text is split at a uniformly random place: there is no rate",
}


def noise(subject: Subject) -> Iterator[Check]:
    """Count what is hidden in some epochs, and compare with the configured rates."""
    objective = subject.parts.objective.at(0.0)
    tokens = tokens_of(subject)
    objectives: Sequence[Objective] = [objective]
    if isinstance(objective, Mixture):
        objectives = objective.objectives
    for number, each in enumerate(objectives, 1):
        which = f" (objective {number})" if len(objectives) > 1 else ""
        yield from _of(subject, each, tokens, which)


def _of(subject: Subject, objective: Objective, tokens: Tokens, which: str) -> Iterator[Check]:
    if isinstance(objective, Permutation) and is_of_lmft(objective):
        yield _permuted(subject, objective, tokens)
        return
    rates = rates_of(objective)
    if not rates:
        reasons = (why for kind, why in _WITHOUT_RATE.items() if type(objective) is kind)
        own = f"lmft does not know the rates of {type(objective).__name__}, which is not its own"
        yield does_not_apply(f"noise rate{which}", next(reasons, own))
        return
    rows = list(_sampled(subject, objective))
    for rate in rates:
        counts = [rate.count(row, tokens) for row in rows]
        yield compared(f"{rate.option}{which}", rate, counts)
    if isinstance(objective, Masking):
        yield _replacements(subject, rows, tokens)


def _sampled(subject: Subject, objective: Objective) -> Iterator[Row]:
    """Yield rows under an objective, of one epoch after the other until there are enough."""
    parts = subject.parts
    examples = parts.corpus.examples["train"]
    numbers = subject.in_order("train", _NUM_ROWS)
    batches = Batches(examples, objective, parts.vocabulary, parts.config["seed"], "train")
    num_rows = 0
    num_tokens = 0
    epoch = 0
    while num_rows < _NUM_ROWS and num_tokens < _NUM_TOKENS:
        for start in range(0, len(numbers), 16):
            chosen = numbers[start : start + 16]
            batch = batches[MicroBatch(epoch, chosen)]
            yield from rows_of(batch, examples.rows(chosen))
            num_rows += len(chosen)
            num_tokens += batch.num_tokens
        epoch += 1


def compared(name: str, rate: Rate, counts: Sequence[Count]) -> Check:
    """Return whether a rate, counted in many rows, is the one that is configured."""
    found = np.array([count.found for count in counts], float)
    expected = np.array([count.expected for count in counts], float)
    total = sum(count.out_of for count in counts)
    if not total:
        return does_not_apply(name, f"there is nothing to count: {rate.what}")
    apart = found - expected
    error = math.sqrt(float(np.square(apart - apart.mean()).sum())) / total
    measured = abs(float(apart.sum())) / total
    tolerance = _ERRORS * error + _ROUNDING
    shares = [rate.configured, float(found.sum()) / total, float(expected.sum()) / total, error]
    shown = [f"{share:.2%}" if rate.is_share else f"{share:.3g}" for share in shares]
    figure = f"{shown[1]} {rate.what} ± {shown[3]}, configured {shown[0]}"
    if shown[2] != shown[0]:
        figure += f" ({shown[2]} on texts of these lengths)"
    return within(name, measured, tolerance, figure, _ORIGIN)


def _replacements(subject: Subject, rows: Sequence[Row], tokens: Tokens) -> Check:
    """Return whether no special token was shown in place of a hidden one, or ever will be."""
    name = "random tokens are ordinary"
    drawn_from = set(subject.parts.vocabulary.ordinary_ids.tolist())
    if special := drawn_from & tokens.special_ids:
        shown = subject.parts.tokenizer.decode(sorted(special)[:5])
        return holds(name, False, f"{len(special)} special tokens can be drawn: {shown}")
    num_random = 0
    for row in rows:
        shown = row.shown[row.columns]
        replaced = shown[(shown != row.targets) & (shown != tokens.mask_id)]
        num_random += len(replaced)
        for token in replaced.tolist():
            if token in tokens.special_ids:
                text = subject.parts.tokenizer.decode([token])
                return holds(name, False, f"the special token {text} stands in place of a hidden one")
    return holds(name, True, f"{num_random} of {len(drawn_from)} ordinary tokens, no special one")


def _permuted(subject: Subject, objective: Permutation, tokens: Tokens) -> Check:
    """Compare the share of predicted tokens with that of transformers' collator on the same texts."""
    name = "plm_probability"
    collator = DataCollatorForPermutationLanguageModeling(
        subject.parts.tokenizer, objective.plm_probability, objective.max_span_length
    )
    ours: list[float] = []
    theirs: list[float] = []
    num_tokens = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.parts.config["seed"])
        for row in _sampled(subject, objective):
            if len(row.text) % 2:  # the collator refuses it
                continue
            text = row.text
            _, _, _, labels = collator.torch_mask_tokens(torch.from_numpy(text)[None].clone())
            theirs.append(int((labels != -100).sum()))
            ours.append(len(row.columns))
            num_tokens += int((~np.isin(row.text, list(tokens.special_ids))).sum())
    if not num_tokens:
        return does_not_apply(name, "all examples have an odd number of tokens")
    apart = np.array(ours) - np.array(theirs)
    error = math.sqrt(float(np.square(apart - apart.mean()).sum())) / num_tokens
    measured = abs(float(apart.sum())) / num_tokens
    figure = f"{sum(ours) / num_tokens:.2%} of the tokens predicted ± {error:.2%}, "
    figure += f"transformers' collator {sum(theirs) / num_tokens:.2%}"
    return within(name, measured, _ERRORS * error, figure, _ORIGIN)
