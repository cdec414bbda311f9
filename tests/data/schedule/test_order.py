"""The order of a mixture: exact shares, whole passes over each source, a function of seed, epoch and place."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.examples.mixture import examples_per_epoch
from lmft.data.schedule.order import Mixed
from lmft.data.schedule.sampler import Schedule
from lmft.errors import UserError

mixtures = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 20)), min_size=1, max_size=4)


class Examples:
    """So many examples of ten tokens each."""

    def __init__(self, size: int, num_tokens: int = 10):
        self.size = size
        self.num_tokens = size * num_tokens

    def __len__(self) -> int:
        return self.size


def epochs_of(sizes, counts, num_epochs, seed=0):
    order = Mixed(sizes, counts, seed)
    return [order(epoch, np.arange(sum(counts))) for epoch in range(num_epochs)]


@settings(deadline=None)
@given(mixture=mixtures, seed=st.integers(0, 5))
def test_each_epoch_holds_each_sources_count_and_no_number_twice(mixture, seed):
    sizes, counts = zip(*mixture, strict=True)
    firsts = np.cumsum([0, *sizes])
    for numbers in epochs_of(sizes, counts, 4, seed):
        assert len(set(numbers.tolist())) == sum(counts)
        sources = np.searchsorted(firsts, numbers % firsts[-1], side="right") - 1
        assert np.bincount(sources, minlength=len(sizes)).tolist() == [*counts]


@settings(deadline=None)
@given(mixture=mixtures)
def test_a_source_is_gone_through_in_whole_passes_across_epochs(mixture):
    sizes, counts = zip(*mixture, strict=True)
    firsts = np.cumsum([0, *sizes])
    drawn = np.concatenate(epochs_of(sizes, counts, 5)) % firsts[-1]
    for source, size in enumerate(sizes):
        times = Counter(drawn[(drawn >= firsts[source]) & (drawn < firsts[source + 1])].tolist())
        num_passes = 5 * counts[source] / size
        assert {np.floor(num_passes), np.ceil(num_passes)} >= {times[firsts[source] + i] for i in range(size)}


@settings(deadline=None)
@given(mixture=mixtures, cuts=st.lists(st.integers(0, 80), max_size=4))
def test_an_order_depends_on_seed_epoch_and_place_alone(mixture, cuts):
    sizes, counts = zip(*mixture, strict=True)
    whole = epochs_of(sizes, counts, 3)[2]
    parts = np.split(np.arange(sum(counts)), sorted(min(cut, sum(counts)) for cut in cuts))
    assert np.array_equal(np.concatenate([Mixed(sizes, counts, 0)(2, part) for part in parts]), whole)


def test_another_seed_and_another_epoch_give_another_order():
    first, second = epochs_of([50, 50], [30, 20], 2)
    (other,) = epochs_of([50, 50], [30, 20], 1, seed=1)
    assert first.tolist() != second.tolist() and first.tolist() != other.tolist()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_share_the_steps_of_a_mixture_by_length(accumulate):
    sizes, counts = [30, 9], [16, 16]
    lengths = np.random.default_rng(0).integers(1, 50, sum(sizes))

    def steps(world_size):
        size = 8 // world_size // accumulate
        schedules = [
            Schedule(32, size, 0, True, rank, world_size, lengths, accumulate, Mixed(sizes, counts, 0))
            for rank in range(world_size)
        ]
        batches = [
            np.concatenate([each.micro_batch(1, position).examples for each in schedules])
            for position in range(len(schedules[0]))
        ]
        return [
            sorted(np.concatenate(batches[i : i + accumulate]).tolist()) for i in range(0, len(batches), accumulate)
        ]

    assert steps(1) == steps(2)
    assert sorted(number for step in steps(1) for number in step) == sorted(
        Mixed(sizes, counts, 0)(1, np.arange(32)).tolist()
    )


# the size of an epoch


@pytest.mark.parametrize(
    ("sizes", "weights", "epoch", "expected"),
    [
        ([700, 300], [0.7, 0.3], None, [700, 300]),
        ([7000, 300], [0.7, 0.3], None, [700, 300]),  # until the first source is used up
        ([7000, 300], [7, 3], None, [700, 300]),
        ([7000, 300], [0.7, 0.3], "a", [7000, 3000]),
        ([7000, 300], [0.7, 0.3], "b", [700, 300]),
        ([7000, 300], [0.7, 0.3], 5000, [350, 150]),  # tokens; an example has ten
        ([10, 10, 10], [1, 1, 1], 100, [4, 3, 3]),
    ],
)
def test_an_epoch_is_a_pass_over_a_source_or_a_number_of_tokens(sizes, weights, epoch, expected):
    sources = dict(zip("abc", map(Examples, sizes), strict=False))
    counts = examples_per_epoch(sources, dict(zip("abc", weights, strict=False)), epoch)
    assert [*counts.values()] == expected


def test_tokens_of_an_epoch_follow_the_sources_mean_lengths():
    sources = {"short": Examples(100, 10), "long": Examples(100, 30)}
    assert examples_per_epoch(sources, {"short": 1, "long": 1}, 1000) == {"short": 25, "long": 25}


def test_a_source_without_an_example_in_an_epoch_is_refused():
    sources = {"news": Examples(100), "own": Examples(100)}
    with pytest.raises(UserError, match=r"none of data\.sources\.own"):
        examples_per_epoch(sources, {"news": 0.999, "own": 0.001}, 1000)
