"""Each row is corrupted by one of the objectives, as that objective alone would do it."""

import numpy as np
import pytest

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.mixture import Mixture, NoiseOfSome
from lmft.objectives.mlm import MaskedTokens
from lmft.objectives.prefix_lm import PrefixLM
from lmft.objectives.span_corruption import SpanCorruption
from tests.helpers.rows import near
from tests.helpers.seq2seq import VOCABULARY, examples_of, numbered

SHORT, LONG, PREFIX = SpanCorruption(0.15, 3.0), SpanCorruption(0.5, 8.0), PrefixLM()


def test_every_row_is_what_one_of_the_objectives_makes_of_it():
    rows, num = numbered(2000, 24), 2000
    rows.lengths[::3] = 17
    rows.tokens[::3, 17:] = VOCABULARY.pad_id
    mixed = examples_of(Mixture([SHORT, LONG, PREFIX], [1, 2, 5]), rows)
    outcomes = [examples_of(objective, rows) for objective in (SHORT, LONG, PREFIX)]
    which = [
        next(i for i in range(3) if (outcomes[i][row].inputs, outcomes[i][row].targets) == (inputs, targets))
        for row, (inputs, _, targets) in enumerate(mixed)
    ]
    assert all(near(which.count(i), num, share) for i, share in enumerate([1 / 8, 2 / 8, 5 / 8]))


def test_a_weight_of_0_is_never_drawn():
    mixed = examples_of(Mixture([SHORT, LONG], [0, 3]), numbered(200, 24))
    assert mixed == examples_of(LONG, numbered(200, 24))


def test_texts_are_as_long_as_every_objective_can_take():
    assert Mixture([SHORT, LONG], [1, 1]).num_raw_tokens(512) == SHORT.num_raw_tokens(512) == 568
    mixture = Mixture([SHORT, PREFIX, SpanCorruption(0.5, 3.0)], [1, 1, 1])
    assert mixture.num_raw_tokens(170) == 170
    mixture.check(VOCABULARY, 170)
    with pytest.raises(ValueError, match="200 tokens of text need 33 sentinels"):
        mixture.check(VOCABULARY, 200)


def test_the_noise_of_some_rows_is_theirs():
    noise = TokenNoise(0, 0, np.arange(6))
    some = NoiseOfSome(noise, np.array([4, 1]))
    columns = np.arange(5)
    np.testing.assert_array_equal(some.bits("x", columns), noise.bits("x", columns)[[4, 1]])
    pairs = some.bits("x", np.array([3, 0]), np.array([1, 0]))
    np.testing.assert_array_equal(pairs, noise.bits("x", columns)[[1, 4], [3, 0]])


@pytest.mark.parametrize(
    ("objectives", "weights"),
    [([], []), ([SHORT], [1, 2]), ([SHORT, LONG], [1, -1]), ([SHORT], [0]), ([MaskedTokens()], [1])],
)
def test_mixtures_that_are_none(objectives, weights):
    with pytest.raises(ValueError, match=r"objective\.(objectives|weights)"):
        Mixture(objectives, weights)
