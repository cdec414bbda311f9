"""The order of an epoch's examples: pure functions of (seed, epoch, place)."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation


class Order(Protocol):
    """The order of the examples of training, epoch by epoch."""

    def __call__(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the examples at these places [n] of an epoch. [n]"""
        ...


class Shuffled:
    """Every example once an epoch, in another order each time."""

    def __init__(self, num_examples: int, seed: int):
        self.num_examples = num_examples
        self.seed = seed

    def __call__(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the examples at these places [n] of an epoch. [n]"""
        return Permutation(self.num_examples, key(self.seed, "order", epoch))(places)


class Mixed:
    """A fixed number of each source's examples an epoch.

    A source is gone through in shuffled passes, each example once a pass, and the next epoch continues
    where the last one ended. So a large source is used up over several epochs, and a small one is
    repeated.
    """

    def __init__(self, sizes: Sequence[int], counts: Sequence[int], seed: int):
        """Create the order.

        Args:
            sizes: examples of each source.
            counts: examples of each source in an epoch.
            seed: seed of the order.
        """
        self.sizes = np.array(sizes, np.int64)
        self.counts = np.array(counts, np.int64)
        self.seed = seed
        self._first_slots = np.concatenate([[0], np.cumsum(self.counts)])
        self._first_examples = np.concatenate([[0], np.cumsum(self.sizes)])

    def __call__(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """Return the examples at these places [n] of an epoch. [n]

        The examples of all sources are numbered in order, from 0 to S. An example that comes up again in
        the same epoch is returned as its number + S, the third time as its number + 2 S, so that each
        time it gets other noise.
        """
        num_slots = int(self._first_slots[-1])
        slots = Permutation(num_slots, key(self.seed, "order", epoch))(places).astype(np.int64)
        sources = np.searchsorted(self._first_slots, slots, side="right") - 1
        examples = np.empty(len(slots), np.int64)
        for source in np.unique(sources):
            is_its = sources == source
            before = epoch * int(self.counts[source])  # of its examples, in earlier epochs
            drawn = before + slots[is_its] - self._first_slots[source]
            examples[is_its] = self._numbers(int(source), drawn, before)
        return examples

    def _numbers(self, source: int, drawn: np.ndarray, before: int) -> np.ndarray:
        """Return the numbers of a source's examples, drawn as the `drawn`-th since the first epoch."""
        size = int(self.sizes[source])
        passes, places = np.divmod(drawn, size)
        numbers = np.empty(len(drawn), np.int64)
        for number in np.unique(passes):
            in_pass = passes == number
            order = Permutation(size, key(self.seed, "pass", source, int(number)))
            numbers[in_pass] = order(places[in_pass])
        num_examples = int(self._first_examples[-1])
        return self._first_examples[source] + numbers + (passes - before // size) * num_examples
