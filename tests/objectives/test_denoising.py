"""What holds of every objective for an encoder and a decoder."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.objectives.base import ANSWER, Rows
from lmft.objectives.denoising import left_pack
from lmft.objectives.mixture import Mixture
from lmft.objectives.mlm import MaskedDenoising
from lmft.objectives.pairs import Pairs
from lmft.objectives.prefix_lm import PrefixLM
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from tests.helpers.rows import alone, drawn_rows
from tests.helpers.seq2seq import EOS, VOCABULARY, examples_of, numbered, texts_of, with_ends

few = settings(max_examples=25, deadline=None)
EVERYTHING = TextInfilling(0.3, 2.0, 0.5, 0.1, 0.1, 0.5)
OBJECTIVES = [
    SpanCorruption(),
    SpanCorruption(0.5, 2.0),
    PrefixLM(),
    TextInfilling(),
    EVERYTHING,
    MaskedDenoising(0.4),
    Pairs(),
    Mixture([SpanCorruption(0.4, 1.5), PrefixLM(), EVERYTHING], [2, 1, 1]),
]
every_objective = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)


def with_answers(rows: Rows) -> Rows:
    """The second half of each row is what is to be said."""
    return replace(
        rows, flags=rows.flags | np.where(np.arange(rows.tokens.shape[1]) * 2 > rows.lengths[:, None], ANSWER, 0)
    )


@every_objective
@few
@given(rows=drawn_rows(), epoch=st.integers(0, 3))
def test_an_example_is_the_same_in_any_company(objective, rows, epoch):
    rows = with_answers(rows)
    together = examples_of(objective, rows, epoch=epoch)
    assert len(together) == len(rows.lengths)
    for row, example in enumerate(together):
        single = examples_of(objective, alone(rows, row), epoch=epoch)[0]
        assert (single.inputs, single.targets) == (example.inputs, example.targets)
    names = ("tokens", "flags", "lengths", "numbers")
    backwards = replace(rows, **{name: getattr(rows, name)[::-1] for name in names})
    assert examples_of(objective, backwards, epoch=epoch) == together[::-1]


@every_objective
def test_seed_epoch_and_number_choose_other_noise(objective):
    rows = with_answers(with_ends(numbered(4, 60), ends=(110, 120, 130)))
    vocabulary = replace(VOCABULARY, size=200)
    first = examples_of(objective, rows, vocabulary)
    assert first == examples_of(objective, rows, vocabulary)
    others = [
        examples_of(objective, rows, vocabulary, epoch=1),
        examples_of(objective, rows, vocabulary, seed=1),
        examples_of(objective, replace(rows, numbers=rows.numbers + 4), vocabulary),
    ]
    for other in others:
        assert all((a == b) == isinstance(objective, Pairs) for a, b in zip(first, other, strict=True))


@every_objective
def test_a_model_that_does_not_say_what_its_decoder_begins_with(objective):
    objective.check(VOCABULARY, 40)
    with pytest.raises(ValueError, match="decoder_start_token_id"):
        objective.check(replace(VOCABULARY, decoder_start_id=None), 40)


@every_objective
def test_denoising_objectives_train_seq2seq_models(objective):
    assert objective.families == ("seq2seq",)


@few
@given(rows=drawn_rows(), seed=st.integers(0, 100))
def test_packed_rows_hold_what_was_kept_in_its_order(rows, seed):
    kept = np.random.default_rng(seed).random(rows.tokens.shape) < 0.5
    sequences = left_pack(rows.tokens, kept, replace(VOCABULARY, pad_id=-7))
    for row, length in enumerate(sequences.lengths):
        assert sequences.tokens[row, :length].tolist() == rows.tokens[row][kept[row]].tolist()
        assert (sequences.tokens[row, length:] == -7).all()
    assert sequences.tokens.shape[1] == max(1, *sequences.lengths, 0)


class TestPairs:
    @few
    @given(rows=drawn_rows())
    def test_the_encoder_reads_the_source_and_the_decoder_says_the_target(self, rows):
        rows = with_answers(rows)
        for row, example in enumerate(examples_of(Pairs(), rows)):
            source = int(np.argmax(np.append((rows.flags[row] & ANSWER) != 0, True)[: rows.lengths[row] + 1]))
            source = source or int(rows.lengths[row])
            assert example.inputs + example.said == texts_of(rows)[row]
            assert source == len(example.inputs)

    def test_a_row_without_a_source_still_has_something_to_attend_to(self):
        rows = numbered(2, 4)
        rows.flags[0], rows.flags[1, 2:] = ANSWER, ANSWER
        first, second = examples_of(Pairs(), rows)
        assert (first.inputs, first.said) == ([VOCABULARY.pad_id], [100, 101, 102, 103])
        assert (second.inputs, second.said) == ([100, 101], [102, 103])


class TestPrefixLM:
    @few
    @given(rows=drawn_rows())
    def test_both_parts_make_the_text_and_end(self, rows):
        for text, example in zip(texts_of(rows), examples_of(PrefixLM(), rows), strict=True):
            *prefix, first_end = example.inputs
            *rest, second_end = example.said
            assert prefix + rest == text
            assert first_end == second_end == VOCABULARY.eos_id
            assert prefix and (rest or len(text) == 1)

    def test_every_place_is_as_probable(self):
        splits = [len(example.inputs) - 1 for example in examples_of(PrefixLM(), numbered(3000, 6))]
        assert np.abs(np.bincount(splits, minlength=7)[1:6] - 600).max() < 4.5 * (3000 * 0.2 * 0.8) ** 0.5
        assert set(splits) == {1, 2, 3, 4, 5}

    def test_what_cannot_be_split(self):
        with pytest.raises(ValueError, match="too short"):
            PrefixLM().check(VOCABULARY, 1)
        with pytest.raises(ValueError, match="end-of-sequence"):
            PrefixLM().check(replace(VOCABULARY, eos_id=None), 10)


@pytest.mark.parametrize("objective", [SpanCorruption(), PrefixLM()], ids=lambda objective: type(objective).__name__)
def test_a_line_that_ends_with_its_own_separator_is_not_ended_twice(objective):
    text = numbered(3, 12)
    closed = replace(text, tokens=np.concatenate([text.tokens, np.full((3, 1), EOS)], axis=1), lengths=text.lengths + 1)
    closed = replace(closed, flags=np.zeros(closed.tokens.shape, np.uint8), are_lines=True)
    assert examples_of(objective, closed) == examples_of(objective, text)
