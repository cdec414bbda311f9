"""Single tokens are hidden as they should be: which, how many, how, and whoever else is in the batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DataCollatorForLanguageModeling

from lmft.objectives.base import SPECIAL, WORD_START, Rows
from lmft.objectives.mlm import MaskedDenoising, MaskedTokens
from lmft.objectives.whole_word import MaskedWords
from tests.helpers import seq2seq
from tests.helpers.models import TEXTS
from tests.helpers.rows import MASK, VOCABULARY, alone, drawn_rows, near, outcome, sample_of

few = settings(max_examples=60, deadline=None)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: (pair[0], (1 - pair[0]) * pair[1]))


def plain_rows(num: int, length: int) -> Rows:
    tokens = np.random.default_rng(0).integers(5, VOCABULARY.size, (num, length))
    return Rows(tokens, np.zeros(tokens.shape, np.uint8), np.full(num, length), np.arange(num))


@few
@given(rows=drawn_rows(), rate=st.floats(0.001, 1), split=shares, epoch=st.integers(0, 3))
def test_every_example_that_can_has_a_target_and_nothing_special_is_one(rows, rate, split, epoch):
    found = outcome(MaskedTokens(rate, *split), rows, epoch=epoch)
    candidates = (rows.flags & SPECIAL) == 0
    np.testing.assert_array_equal(found.chosen.any(axis=1), candidates.any(axis=1))
    if rate == 1:
        np.testing.assert_array_equal(found.chosen, candidates)
    assert ("attention_mask" in found.batch) == (rows.lengths.min() < rows.lengths.max())


@few
@given(rows=drawn_rows(), rate=st.floats(0.001, 1), epoch=st.integers(0, 3))
def test_an_example_is_the_same_in_any_company(rows, rate, epoch):
    objective = MaskedTokens(rate, 0.4, 0.4)
    together = outcome(objective, rows, epoch=epoch)
    for row, length in enumerate(rows.lengths):
        single = outcome(objective, alone(rows, row), epoch=epoch)
        np.testing.assert_array_equal(single.shown[0], together.shown[row, :length])
        np.testing.assert_array_equal(single.labels[0], together.labels[row, :length])
        assert not together.chosen[row, length:].any()
    names = ("tokens", "flags", "lengths", "numbers")
    backwards = outcome(objective, replace(rows, **{name: getattr(rows, name)[::-1] for name in names}), epoch=epoch)
    np.testing.assert_array_equal(backwards.labels[::-1], together.labels)
    np.testing.assert_array_equal(backwards.shown[::-1], together.shown)


def test_a_vocabulary_without_a_mask_is_refused():
    MaskedTokens().check(VOCABULARY, 128)
    with pytest.raises(ValueError, match="no mask token"):
        MaskedTokens().check(replace(VOCABULARY, mask_id=None), 128)


def test_an_example_without_candidates_has_no_target_and_spoils_nothing():
    rows = plain_rows(2, 20)
    rows.flags[0] = SPECIAL
    assert outcome(MaskedTokens(), rows).chosen.any(axis=1).tolist() == [False, True]
    rows.flags[1] = SPECIAL
    found = outcome(MaskedTokens(), rows)
    assert not found.chosen.any()
    assert len(found.batch["targets"]) == 8


def test_seed_epoch_and_number_choose_other_targets():
    rows = plain_rows(8, 64)
    first = outcome(MaskedTokens(), rows)
    others = [
        outcome(MaskedTokens(), rows, epoch=1),
        outcome(MaskedTokens(), rows, seed=1),
        outcome(MaskedTokens(), replace(rows, numbers=rows.numbers + 8)),
    ]
    for other in others:
        both = (first.chosen & other.chosen).sum()
        assert near(int(both), first.chosen.size, 0.15**2)


@pytest.mark.parametrize(
    ("rate", "split"), [(0.15, (0.8, 0.1)), (0.3, (0.5, 0.5)), (0.4, (0.0, 0.2)), (0.15, (1.0, 0.0))]
)
def test_rates_and_shares(rate, split):
    rows = plain_rows(400, 128)
    found = outcome(MaskedTokens(rate, *split), rows)
    num = int(found.chosen.sum())
    assert near(num, rows.tokens.size, rate)
    masked = int((found.shown[found.chosen] == MASK).sum())
    kept = int((found.shown == rows.tokens)[found.chosen].sum())
    by_chance = split[1] / len(VOCABULARY.ordinary_ids)  # a random token may be the token itself
    assert near(masked, num, split[0])
    assert near(kept, num, 1 - sum(split) + by_chance)
    assert near(num - masked - kept, num, split[1] - by_chance)


def test_what_is_shown_does_not_depend_on_where_it_is_or_what_it_is():
    rows = plain_rows(600, 64)
    found = outcome(MaskedTokens(0.5, 0.5, 0.25), rows)
    for by in (np.broadcast_to(np.arange(64), rows.tokens.shape), rows.tokens - 5):
        totals = np.bincount(by.ravel())
        chosen = np.bincount(by[found.chosen], minlength=len(totals))
        masked = np.bincount(by[found.shown == MASK], minlength=len(totals))
        assert all(near(int(c), int(n), 0.5) for c, n in zip(chosen, totals, strict=True))
        assert all(near(int(m), int(c), 0.5) for m, c in zip(masked, chosen, strict=True))


def test_random_tokens_are_any_but_special_ones():
    rows = plain_rows(400, 128)
    found = outcome(MaskedTokens(0.5, 0.0, 1.0), rows)
    counts = np.bincount(found.shown[found.chosen], minlength=VOCABULARY.size)
    assert counts[:5].sum() == 0
    assert all(near(int(count), int(counts.sum()), 1 / 45) for count in counts[5:])


def test_in_line_with_the_collator_of_transformers(any_tokenizer):
    rows, vocabulary = sample_of(any_tokenizer, TEXTS, 60)
    found = outcome(MaskedTokens(), rows, vocabulary)
    collator = DataCollatorForLanguageModeling(any_tokenizer, mlm_probability=0.15, seed=1)
    shown, labels = (part.numpy() for part in collator.torch_mask_tokens(torch.tensor(rows.tokens)))

    ours, theirs = found.chosen, labels != -100
    special = np.isin(rows.tokens, any_tokenizer.all_special_ids)
    np.testing.assert_array_equal((rows.flags & SPECIAL) != 0, special)
    assert not theirs[special].any()
    assert abs(int(ours.sum()) - int(theirs.sum())) < 4.5 * (2 * (~special).sum() * 0.15 * 0.85) ** 0.5
    for what in (lambda shown: shown == any_tokenizer.mask_token_id, lambda shown: shown == rows.tokens):
        share, expected = what(found.shown)[ours].mean(), what(shown)[theirs].mean()
        spread = (expected * (1 - expected) * (1 / ours.sum() + 1 / theirs.sum())) ** 0.5
        assert abs(share - expected) < 4.5 * spread + 1 / len(any_tokenizer)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"mlm_probability": 0}, "mlm_probability"), ({"mlm_probability": -0.1}, "mlm_probability"),
        ({"mlm_probability": 15}, "mlm_probability"), ({"mlm_probability": float("nan")}, "mlm_probability"),
        ({"mask_share": 1.1}, "mask_share"), ({"random_share": -0.1}, "random_share"),
        ({"mask_share": 0.8, "random_share": 0.3}, "more than 1"),
        ({"validation_mlm_probability": 0}, "validation_mlm_probability"),
        ({"validation_mlm_probability": 2}, "validation_mlm_probability"),
    ],
)  # fmt: skip
def test_shares_that_are_none(wrong, named):
    with pytest.raises(ValueError, match=named) as raised:
        MaskedTokens(**wrong)
    assert "objective." in str(raised.value)


@pytest.mark.parametrize("hundredths", range(101))
def test_shares_that_make_a_whole(hundredths):
    MaskedTokens(mask_share=hundredths / 100, random_share=(100 - hundredths) / 100)


@pytest.mark.parametrize("objective", [MaskedTokens, MaskedWords])
def test_validation_may_be_measured_at_a_share_of_its_own(objective):
    rows = plain_rows(100, 64)
    rows.flags[:] = WORD_START
    plain = objective(0.4, 0.7, 0.2)
    assert plain.for_validation() == plain
    measured = objective(0.4, 0.7, 0.2, 0.15).for_validation()
    assert (measured.mlm_probability, measured.mask_share, measured.random_share) == (0.15, 0.7, 0.2)
    np.testing.assert_array_equal(outcome(measured, rows).labels, outcome(objective(0.15, 0.7, 0.2), rows).labels)


# of models with a decoder


@few
@given(rows=drawn_rows(), rate=st.floats(0.01, 1), epoch=st.integers(0, 3))
def test_only_hidden_tokens_count_and_the_decoder_goes_through_the_text(rows, rate, epoch):
    masked = outcome(MaskedTokens(rate, 1.0, 0.0), rows, seq2seq.VOCABULARY, epoch=epoch)
    for row, example in enumerate(seq2seq.examples_of(MaskedDenoising(rate), rows, epoch=epoch)):
        text = seq2seq.texts_of(rows)[row]
        chosen = np.flatnonzero(masked.chosen[row]).tolist()
        assert example.targets == {column: text[column] for column in chosen}
        assert example.inputs == [MASK if column in chosen else token for column, token in enumerate(text)]
        assert example.given[: len(text)] == [seq2seq.START, *text[:-1]]


def test_masked_tokens_become_masked_denoising_for_seq2seq_models():
    objective = MaskedTokens(0.4, 0.9, 0.05, validation_mlm_probability=0.15)
    assert objective.for_family("masked") is objective and objective.for_family("causal") is None
    found = objective.for_family("seq2seq")
    assert found == MaskedDenoising(0.4, 0.9, 0.05, 0.15)
    assert found.for_validation().mlm_probability == 0.15 and found.for_family("masked") is None


@pytest.mark.parametrize(("missing", "said"), [("mask_id", "mask token"), ("decoder_start_id", "decoder_start")])
def test_what_a_decoder_needs(missing, said):
    with pytest.raises(ValueError, match=said):
        MaskedDenoising().check(replace(seq2seq.VOCABULARY, **{missing: None}), 64)
