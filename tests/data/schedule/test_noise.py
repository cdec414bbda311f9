"""The noise is uniform, independent of everything it is not for, and the same however it is asked for."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.schedule.noise import TokenNoise, key, mix

NUM_BINS = 64
DEVIATIONS = 4.5  # of a standard normal: 1 in 150,000 for noise that is as it should be
EXAMPLES, POSITIONS = np.arange(512), np.arange(128)

few = settings(max_examples=30, deadline=None)


def bits_of(seed=7, stream="select", epoch=0, examples=EXAMPLES) -> np.ndarray:
    return TokenNoise(seed, epoch, examples).bits(stream, POSITIONS)


def deviation(chi_square: float, freedom: int) -> float:
    """How many standard deviations off, by Wilson and Hilferty's cube root."""
    spread = 2 / (9 * freedom)
    return float(((chi_square / freedom) ** (1 / 3) - 1 + spread) / spread**0.5)


def assert_uniform(bins: np.ndarray, num_bins: int = NUM_BINS) -> None:
    expected = bins.size / num_bins
    chi_square = ((np.bincount(bins.ravel().astype(np.int64), minlength=num_bins) - expected) ** 2 / expected).sum()
    assert abs(deviation(chi_square, num_bins - 1)) < DEVIATIONS  # too even is wrong, too


def assert_unrelated(one: np.ndarray, other: np.ndarray) -> None:
    """No linear correlation, and no relation of the upper or the lower three bits of the two."""
    assert one.shape == other.shape
    correlation = np.corrcoef(one.ravel().astype(np.float64), other.ravel().astype(np.float64))[0, 1]
    assert abs(correlation) * one.size**0.5 < DEVIATIONS
    for shift in (0, 61):
        first, second = ((bits >> np.uint64(shift)) & np.uint64(7) for bits in (one, other))
        assert_uniform(first * np.uint64(8) + second)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize("stream", ["select", "kind", "token"])
@pytest.mark.parametrize("shift", [0, 29, 58])
def test_uniform_in_every_part_of_the_word(seed, stream, shift):
    bits = bits_of(seed, stream)
    assert bits.dtype == np.uint64
    assert_uniform((bits >> np.uint64(shift)) & np.uint64(NUM_BINS - 1))


def test_uniform_over_the_positions_of_one_example_and_over_the_examples_at_one_position():
    assert_uniform(TokenNoise(7, 0, np.array([3])).bits("select", np.arange(1 << 15)) >> np.uint64(58))
    assert_uniform(TokenNoise(7, 0, np.arange(1 << 15)).bits("select", np.array([3])) >> np.uint64(58))


def test_a_small_modulus_is_uniform():
    assert_uniform(bits_of(stream="token") % np.uint64(61), 61)


def test_no_value_comes_twice():
    names = [(seed, stream, epoch) for seed in (0, 1) for stream in ("select", "kind") for epoch in (0, 1)]
    bits = np.concatenate([bits_of(*name).ravel() for name in names])
    assert len(np.unique(bits)) == len(bits)


@pytest.mark.parametrize(
    "other", [{"seed": 8}, {"stream": "kind"}, {"epoch": 1}, {"examples": EXAMPLES + 1}, {"examples": EXAMPLES + 512}]
)
def test_another_name_is_other_noise(other):
    assert_unrelated(bits_of(), bits_of(**other))


def test_neighbours_are_unrelated():
    bits = bits_of()
    assert_unrelated(bits[1:], bits[:-1])
    assert_unrelated(bits[:, 1:], bits[:, :-1])
    assert_unrelated(bits[1:, :-1], bits[:-1, 1:])  # along the diagonals, where a sloppy counter repeats itself
    assert_unrelated(bits[1:, 1:], bits[:-1, :-1])


@few
@given(
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 10**6),
    examples=st.lists(st.integers(0, 2**40), min_size=1, max_size=9),
    data=st.data(),
)
def test_pairs_equal_the_grid(seed, epoch, examples, data):
    num_positions = data.draw(st.integers(1, 40))
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, len(examples) - 1), st.integers(0, num_positions - 1)), max_size=20)
    )
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    noise = TokenNoise(seed, epoch, np.array(examples))
    grid = noise.bits("kind", np.arange(num_positions))
    assert grid.shape == (len(examples), num_positions)
    np.testing.assert_array_equal(noise.bits("kind", columns, rows), grid[rows, columns])


@few
@given(examples=st.lists(st.integers(0, 2**40), min_size=1, max_size=9), start=st.integers(0, 1000))
def test_an_example_has_its_noise_in_any_company(examples, start):
    positions = np.arange(start, start + 30)
    together = TokenNoise(7, 3, np.array(examples)).bits("select", positions)
    for example, row in zip(examples, together, strict=True):
        longer = TokenNoise(7, 3, np.array([example])).bits("select", np.arange(start + 50))
        np.testing.assert_array_equal(longer[0, start : start + 30], row)


def test_asking_changes_nothing():
    examples, positions = np.arange(4), np.arange(9)
    noise = TokenNoise(7, 0, examples)
    first = noise.bits("select", positions)
    noise.bits("kind", positions)
    np.testing.assert_array_equal(noise.bits("select", positions), first)
    np.testing.assert_array_equal(examples, np.arange(4))
    np.testing.assert_array_equal(positions, np.arange(9))


def test_the_noise_of_a_release_is_that_of_the_next():
    assert key(1, "order", 2) == 0x2E6730F55A62064C
    assert TokenNoise(1, 2, np.array([3])).bits("select", np.array([4])).item() == 0x20FEC3AD6DE5AFB7


def test_keys_tell_all_names_apart():
    names = [
        (), ("",), (0,), ("0",), (1,), (-1,), (1, 2), (12,), ("1", 2), ("1, 2",), (1, "2"), (2, 1), ("a", "bc"),
        ("ab", "c"), (2**64,), (2**64 + 1,), (1, "order", 0), (1, "order", 1), (1, "sample"), (1, "train"),
    ]  # fmt: skip
    assert all(key(*one) != key(*other) for one, other in combinations(names, 2))


def test_mix_is_the_output_function_of_splitmix64():
    counters = np.uint64(0x9E3779B97F4A7C15) * np.arange(1, 4, dtype=np.uint64)
    assert mix(counters).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_mix_is_a_bijection_that_scatters():
    def undo(bits: np.ndarray) -> np.ndarray:
        for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, 1)):
            restored = bits.copy()
            for _ in range(64 // shift):
                restored = bits ^ (restored >> np.uint64(shift))
            bits = restored * np.uint64(pow(factor, -1, 1 << 64))
        return bits

    few = np.arange(1000, dtype=np.uint64)
    numbers = np.concatenate([few, ~few])
    np.testing.assert_array_equal(undo(mix(numbers.copy())), numbers)
    flipped = mix(numbers.copy()) ^ mix(numbers ^ np.uint64(1))
    assert 31 < np.unpackbits(flipped.view(np.uint8)).sum() / len(flipped) < 33  # half of the bits
