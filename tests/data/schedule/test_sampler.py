"""Every example once an epoch, in an order that nothing but the seed and the epoch decides."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmft.data.schedule import sampler as module
from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation
from lmft.data.schedule.sampler import MicroBatch, Schedule, balanced_split_points

DEVIATIONS = 4.5  # of a standard normal


def order_of(size: int, name: int | str = 0) -> np.ndarray:
    return Permutation(size, key(name, "order"))(np.arange(size))


def assert_expected(counts: np.ndarray, total: int) -> None:
    """The counts are those of equally probable outcomes: a chi-square test, by Wilson and Hilferty's cube root."""
    expected, freedom = total / counts.size, counts.size - 1
    ratio = ((counts - expected) ** 2 / expected).sum() / freedom
    spread = 2 / (9 * freedom)
    assert abs((ratio ** (1 / 3) - 1 + spread) / spread**0.5) < DEVIATIONS


class TestPermutation:
    @settings(max_examples=80, deadline=None)
    @given(size=st.integers(1, 5000), seed=st.integers(0, 2**63))
    def test_bijection(self, size, seed):
        order = order_of(size, seed)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(size))

    @pytest.mark.parametrize("size", [*range(1, 35), 63, 64, 65, 255, 256, 257, 4096, 4097, 100_003])
    def test_bijection_on_the_borders_of_the_domains(self, size):
        np.testing.assert_array_equal(np.sort(order_of(size)), np.arange(size))

    @settings(max_examples=40, deadline=None)
    @given(size=st.integers(1, 2**40), data=st.data())
    def test_one_index_at_a_time(self, size, data):
        positions = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8)))
        permutation = Permutation(size, key(data.draw(st.integers())))
        images = permutation(positions)
        assert ((images >= 0) & (images < size)).all()
        assert [permutation(np.array([position])).item() for position in positions] == images.tolist()
        assert len(np.unique(images)) == len(np.unique(positions))

    def test_no_position_no_example(self):
        assert Permutation(9, key(0))(np.arange(0)).tolist() == []

    def test_a_large_corpus_costs_nothing_ahead(self):
        permutation = Permutation(10**12, key(0))
        assert len(set(permutation(np.arange(10**12 - 1000, 10**12)).tolist())) == 1000

    @pytest.mark.parametrize("size", [12, 100, 5000])
    def test_keys_give_different_orders(self, size):
        orders = {tuple(order_of(size, name).tolist()) for name in range(200)}
        assert len(orders) == 200

    @pytest.mark.parametrize("size", range(2, 6))
    def test_every_order_of_a_few_is_as_probable_as_the_others(self, size):
        orders = {order: i for i, order in enumerate(itertools.permutations(range(size)))}
        total = max(2000, 8 * len(orders))
        found = [orders[tuple(order_of(size, name).tolist())] for name in range(total)]
        assert_expected(np.bincount(found, minlength=len(orders)), total)

    @pytest.mark.parametrize("size", [7, 16, 20, 64])
    def test_every_example_is_as_probable_at_every_position(self, size):
        total = 2000
        orders = np.stack([order_of(size, name) for name in range(total)])
        counts = np.stack([np.bincount(orders[:, position], minlength=size) for position in range(size)])
        ratio = ((counts - total / size) ** 2 / (total / size)).sum() / (size - 1) ** 2
        assert abs(ratio - 1) < DEVIATIONS * (2 / (size - 1) ** 2) ** 0.5

    @pytest.mark.parametrize("size", [16, 20, 64])
    def test_every_pair_is_as_probable_side_by_side(self, size):
        total = 400
        pairs = np.zeros((size, size), np.int64)
        for name in range(total):
            order = order_of(size, name)
            np.add.at(pairs, (order[:-1], order[1:]), 1)
        apart = ~np.eye(size, dtype=bool)
        assert not pairs[~apart].any()
        assert_expected(pairs[apart], total * (size - 1))

    def test_a_long_order_looks_random(self):
        order = order_of(50_000).astype(float)
        for lag in (1, 2, 64, 256):
            assert abs(np.corrcoef(order[lag:], order[:-lag])[0, 1]) * len(order) ** 0.5 < DEVIATIONS
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) * len(order) ** 0.5 < DEVIATIONS
        assert 0.3 < (np.diff(order) > 0).mean() < 0.7


def epoch_of(
    num_examples, batch_size, world_size, epoch=0, shuffled=True, seed=3, lengths=None, accumulate=1
) -> list[list[list[int]]]:
    """The examples of each rank [rank][position][example]."""
    ranks = []
    for rank in range(world_size):
        schedule = Schedule(num_examples, batch_size, seed, shuffled, rank, world_size, lengths, accumulate)
        schedule.set_epoch(epoch)
        batches = list(schedule)
        assert len(batches) == len(schedule)
        assert {batch.epoch for batch in batches} <= {epoch if shuffled else 0}
        ranks.append([batch.examples.tolist() for batch in batches])
    return ranks


shapes = {"num_examples": st.integers(0, 300), "batch_size": st.integers(1, 17), "world_size": st.integers(1, 5)}


class TestSchedule:
    @settings(max_examples=60, deadline=None)
    @given(**shapes, epoch=st.integers(0, 9), shuffled=st.booleans())
    def test_every_example_exactly_once(self, num_examples, batch_size, world_size, epoch, shuffled):
        ranks = epoch_of(num_examples, batch_size, world_size, epoch, shuffled)
        seen = [example for batches in ranks for batch in batches for example in batch]
        assert sorted(seen) == list(range(num_examples))
        lengths = [[len(batch) for batch in batches] for batches in ranks]
        assert len({len(batches) for batches in ranks}) == 1  # no rank waits for another
        for at_once in list(zip(*lengths, strict=True))[:-1]:
            assert set(at_once) == {batch_size}
        if num_examples:
            tail = [batches[-1] for batches in lengths]
            assert max(tail) - min(tail) <= 1
            assert max(tail) <= batch_size

    @settings(max_examples=30, deadline=None)
    @given(
        num_examples=st.integers(1, 300),
        parts=st.sampled_from([[(8, 1), (4, 2), (2, 4), (1, 8)], [(6, 1), (3, 2), (2, 3)], [(10, 2), (4, 5)]]),
        epoch=st.integers(0, 5),
        shuffled=st.booleans(),
    )
    def test_a_step_depends_on_the_global_batch_alone(self, num_examples, parts, epoch, shuffled):
        def steps(batch_size, world_size):
            ranks = epoch_of(num_examples, batch_size, world_size, epoch, shuffled)
            return [sorted(itertools.chain(*batches)) for batches in zip(*ranks, strict=True)]

        first, *others = [steps(*part) for part in parts]
        assert all(other == first for other in others)

    def test_accumulation_goes_through_the_same_examples(self):
        whole = epoch_of(96, 8, 1)[0]
        halves = epoch_of(96, 4, 1)[0]
        assert [one + other for one, other in zip(halves[::2], halves[1::2], strict=True)] == whole

    @settings(max_examples=30, deadline=None)
    @given(**shapes, epoch=st.integers(0, 5), data=st.data())
    def test_a_schedule_continues_from_the_position_it_is_given(
        self, num_examples, batch_size, world_size, epoch, data
    ):
        rank = data.draw(st.integers(0, world_size - 1))
        whole = Schedule(num_examples, batch_size, 3, True, rank, world_size)
        position = data.draw(st.integers(0, len(whole)))
        told = Schedule(num_examples, batch_size, 3, True, rank, world_size)
        told.start(epoch, position)
        for later in range(epoch, epoch + 3):
            whole.set_epoch(later)
            if later > epoch or data.draw(st.booleans()):
                told.set_epoch(later)
            expected = list(whole)[position if later == epoch else 0 :]
            found = list(told)
            assert [batch.epoch for batch in found] == [later] * len(expected)
            assert [b.examples.tolist() for b in found] == [b.examples.tolist() for b in expected]

    def test_epochs_and_seeds_differ(self):
        orders = [epoch_of(1000, 1000, 1, epoch, seed=seed)[0][0] for epoch in range(3) for seed in range(3)]
        for one, other in itertools.combinations(orders, 2):
            assert sum(a == b for a, b in zip(one, other, strict=True)) < 8  # one of a thousand, on average

    def test_an_epoch_is_the_same_each_time(self):
        schedule = Schedule(50, 7, 3, True)
        first = [batch.examples.tolist() for batch in schedule]
        assert [batch.examples.tolist() for batch in schedule] == first

    @pytest.mark.parametrize("world_size", [1, 2, 3])
    def test_validation_lies_in_order_and_is_always_epoch_0(self, world_size):
        passes = []
        for epoch in (0, 4):
            ranks = epoch_of(53, 8, world_size, epoch, shuffled=False)
            passes.append([batch for batches in zip(*ranks, strict=True) for batch in batches])
        assert list(itertools.chain(*passes[0])) == list(range(53))
        assert passes[0] == passes[1]

    def test_a_rank_without_a_share_of_the_tail(self):
        ranks = epoch_of(9, 4, 2)
        assert [len(batches[-1]) for batches in ranks] == [0, 1]

    def test_any_position_without_those_before(self):
        schedule = Schedule(10**12, 64, 3, True, 1, 4)
        batch = schedule.micro_batch(7, len(schedule) // 2)
        assert isinstance(batch, MicroBatch)
        assert batch.epoch == 7
        assert len(set(batch.examples.tolist())) == 64

    def test_a_loader_process_gets_the_same(self):
        schedule = Schedule(50, 7, 3, True)
        schedule.start(2, 3)
        copy = pickle.loads(pickle.dumps(schedule))
        assert [b.examples.tolist() for b in copy] == [b.examples.tolist() for b in schedule]


WINDOW = 3  # steps among which examples are sorted: few, so that small epochs have several windows


@pytest.fixture(scope="class")
def small_windows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WINDOW", WINDOW)
        yield


def lengths_of(num_examples: int, seed: int = 0) -> np.ndarray:
    """Of texts as they are: mostly short, some very long."""
    return np.random.default_rng(seed).lognormal(4, 1, num_examples).astype(np.int64).clip(2, 512)


def padded(batches: list[list[int]], lengths: np.ndarray) -> np.ndarray:
    """Tokens of each micro-batch, padding counted."""
    return np.array([len(batch) * lengths[batch].max() for batch in batches])


def joined(parts) -> list[int]:
    return [*itertools.chain(*parts)]


def steps_of(ranks, accumulate: int) -> list[list[int]]:
    """The examples of each step, those of all its micro-batches and ranks."""
    stretches = [joined(parts) for parts in zip(*ranks, strict=True)]
    return [joined(stretches[start : start + accumulate]) for start in range(0, len(stretches), accumulate)]


@pytest.mark.usefixtures("small_windows")
class TestByLength:
    @settings(max_examples=100, deadline=None)
    @given(**shapes, epoch=st.integers(0, 3), shuffled=st.booleans(), accumulate=st.integers(1, 4))
    def test_every_example_exactly_once_in_the_window_it_would_be_in(
        self, num_examples, batch_size, world_size, epoch, shuffled, accumulate
    ):
        sizes = num_examples, batch_size, world_size, epoch, shuffled
        plain = epoch_of(*sizes)
        ranks = epoch_of(*sizes, lengths=lengths_of(num_examples), accumulate=accumulate)
        assert [len(batches) for batches in ranks] == [len(batches) for batches in plain]
        expected, found = steps_of(plain, accumulate), steps_of(ranks, accumulate)
        size = batch_size * world_size * accumulate
        num_windows = max(1, num_examples // (size * WINDOW))
        for number in range(num_windows):
            stop = (number + 1) * WINDOW if number + 1 < num_windows else None
            window = slice(number * WINDOW, stop)
            assert sorted(joined(found[window])) == sorted(joined(expected[window]))
        assert sorted(joined(found)) == [*range(num_examples)]

    @settings(max_examples=100, deadline=None)
    @given(**shapes, accumulate=st.integers(1, 4))
    def test_nothing_is_empty_that_need_not_be(self, num_examples, batch_size, world_size, accumulate):
        lengths = lengths_of(num_examples)
        ranks = epoch_of(num_examples, batch_size, world_size, lengths=lengths, accumulate=accumulate)
        assert all(steps_of(ranks, accumulate))
        for parts in zip(*ranks, strict=True):
            sizes = [len(part) for part in parts]
            assert max(sizes) - min(sizes) <= 1  # as many for each rank
        stretches = [joined(parts) for parts in zip(*ranks, strict=True)]
        for start in range(0, len(stretches), accumulate):
            step = stretches[start : start + accumulate]
            assert all(step) or max(map(len, step)) == 1

    @settings(max_examples=60, deadline=None)
    @given(**shapes, epoch=st.integers(0, 3), shuffled=st.booleans(), accumulate=st.integers(1, 3), data=st.data())
    def test_any_position_in_any_order(self, num_examples, batch_size, world_size, epoch, shuffled, accumulate, data):
        lengths, rank = lengths_of(num_examples), data.draw(st.integers(0, world_size - 1))
        sizes = num_examples, batch_size, world_size, epoch, shuffled
        whole = epoch_of(*sizes, lengths=lengths, accumulate=accumulate)[rank]
        schedule = Schedule(num_examples, batch_size, 3, shuffled, rank, world_size, lengths, accumulate)
        names = [*itertools.product((epoch, epoch + 1), range(len(schedule)))]
        for some_epoch, position in data.draw(st.lists(st.sampled_from(names), max_size=12)) if names else []:
            found = schedule.micro_batch(some_epoch, position).examples.tolist()
            assert some_epoch != epoch or found == whole[position]
        position = data.draw(st.integers(0, len(schedule)))  # in the middle of a window, or of a step
        schedule.start(epoch, position)
        assert [batch.examples.tolist() for batch in schedule] == whole[position:]

    @settings(max_examples=30, deadline=None)
    @given(num_examples=st.integers(1, 200), shuffled=st.booleans())
    def test_a_step_depends_on_the_global_batch_alone(self, num_examples, shuffled):
        lengths = lengths_of(num_examples)
        first, *others = [
            steps_of(
                epoch_of(num_examples, *sizes, shuffled=shuffled, lengths=lengths, accumulate=accumulate), accumulate
            )
            for *sizes, accumulate in ((12, 1, 1), (6, 2, 1), (4, 1, 3), (2, 2, 3), (1, 4, 3))
        ]
        assert all(other == first for other in others)

    def test_a_step_is_of_like_lengths(self):
        lengths = lengths_of(120)
        for accumulate in (1, 2):
            steps = steps_of(epoch_of(120, 8, 1, lengths=lengths, accumulate=accumulate), accumulate)
            for start in range(0, len(steps), WINDOW):
                ranges = sorted((lengths[step].min(), lengths[step].max()) for step in steps[start : start + WINDOW])
                assert all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))

    def test_long_and_short_ones_take_turns(self):
        lengths = lengths_of(14_400)
        batches = epoch_of(14_400, 8, 1, lengths=lengths)[0]
        orders = [
            tuple(np.argsort([lengths[batch].max() for batch in batches[start : start + WINDOW]]).tolist())
            for start in range(0, len(batches), WINDOW)
        ]
        assert_expected(np.array([orders.count(order) for order in itertools.permutations(range(3))]), len(orders))

    def test_a_giant_leaves_the_other_steps_something(self):
        lengths = np.array([1] * 9 + [10_000])
        assert [len(batch) for batch in epoch_of(10, 4, 1, shuffled=False, lengths=lengths)[0]] == [1, 1, 8]

    def test_epochs_and_seeds_differ(self):
        names = [{"epoch": 0}, {"epoch": 1}, {"seed": 4}]
        orders = [epoch_of(200, 8, 1, lengths=lengths_of(200), **name)[0] for name in names]
        assert all(one != other for one, other in itertools.combinations(orders, 2))

    def test_validation_is_the_same_at_every_pass(self):
        passes = [epoch_of(53, 8, 2, epoch, shuffled=False, lengths=lengths_of(53)) for epoch in (0, 4)]
        assert passes[0] == passes[1]

    def test_a_loader_process_gets_the_same(self):
        schedule = Schedule(50, 7, 3, True, lengths=lengths_of(50))
        first = [batch.examples.tolist() for batch in schedule]
        copy = pickle.loads(pickle.dumps(schedule))
        assert [batch.examples.tolist() for batch in copy] == first


class TestPadding:
    @pytest.mark.parametrize(("shuffled", "accumulate"), [(True, 1), (False, 1), (True, 4)])
    def test_sorting_saves_it_and_memory(self, shuffled, accumulate):
        lengths = lengths_of(5000)
        plain = padded(epoch_of(5000, 16, 1, shuffled=shuffled)[0], lengths)
        by_length = padded(epoch_of(5000, 16, 1, shuffled=shuffled, lengths=lengths, accumulate=accumulate)[0], lengths)
        assert plain.sum() > 2 * lengths.sum()
        assert by_length.sum() < 1.1 * lengths.sum()
        assert by_length.max() < plain.max() / 3

    @pytest.mark.parametrize(("num_steps", "num_over", "accumulate"), [(64, 1, 1), (65, 1, 1), (1, 1, 64), (80, 3, 8)])
    def test_the_end_of_an_epoch_needs_no_more_memory(self, num_steps, num_over, accumulate):
        num_examples = 16 * (num_steps * accumulate + num_over)
        lengths = lengths_of(num_examples)
        sizes = padded(epoch_of(num_examples, 16, 1, lengths=lengths, accumulate=accumulate)[0], lengths)
        assert sizes.max() < 1.5 * np.median(sizes)


class TestEvenlyPadded:
    @settings(max_examples=300, deadline=None)
    @given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=9).map(sorted), data=st.data())
    def test_the_largest_part_is_as_small_as_can_be(self, lengths, data):
        num_parts = data.draw(st.integers(1, len(lengths)))

        def largest(places):
            begins, ends = (0, *places), (*places, len(lengths))
            return max((end - begin) * lengths[end - 1] for begin, end in zip(begins, ends, strict=True))

        places = balanced_split_points(np.array(lengths), num_parts).tolist()
        assert places == sorted({*places} - {0, len(lengths)})  # no part is empty
        assert len(places) == num_parts - 1
        ways = itertools.combinations(range(1, len(lengths)), num_parts - 1)
        assert largest(places) == min(map(largest, ways))

    def test_equal_lengths_give_equal_parts(self):
        assert balanced_split_points(np.full(12, 7), 3).tolist() == [4, 8]

    def test_few_long_ones_beside_many_short_ones(self):
        assert balanced_split_points(np.array([10] * 10 + [100]), 2).tolist() == [10]
