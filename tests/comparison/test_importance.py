"""The importance of options: known effects are found, chance is not, and too few runs are told."""

import numpy as np

from lmft.comparison.importance import FEWEST_RUNS, importances


def test_a_number_with_an_optimum_in_the_middle_matters():
    values = list(np.random.default_rng(1).uniform(-5, -2, 40))
    (found,) = importances([values], [(value + 3.5) ** 2 for value in values], seed=1)
    assert found.share > 0.8 > found.chance


def test_a_choice_matters_as_far_as_it_decides_the_rank():
    choices = ["a", "b"] * 20
    costs = [(choice == "a") + number / 100 for number, choice in enumerate(choices)]
    decides, other = importances([choices, ["x"] * 20 + ["y"] * 20], costs, seed=1)
    assert decides.share > 0.7 > other.share


def test_an_option_without_effect_stays_within_chance():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(40):
        (found,) = importances([list(rng.uniform(size=30))], list(rng.normal(size=30)), seed=1)
        shares.append(found.share > found.chance)
    assert sum(shares) <= 6


def test_infinite_costs_are_the_last_ranks():
    values = [float(number) for number in range(20)]
    costs = [number if number < 15 else np.inf for number in range(20)]
    (found,) = importances([values], costs, seed=1)
    assert found.share > 0.9


def test_too_few_runs_tell_nothing():
    assert importances([[1, 2] * 4], [1.0] * 8, seed=1) is None
    (constant, all_different) = importances([["a"] * FEWEST_RUNS, [*"abcdefghij"]], list(range(FEWEST_RUNS)), seed=1)
    assert constant.share is None and all_different.share is None
    (equal,) = importances([["a", "b"] * 8], [1.0] * 16, seed=1)
    assert equal.share is None
