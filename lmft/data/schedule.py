"""Which examples come when: a pure function of (seed, epoch, position), evaluated anywhere at no cost."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from lmft.data.noise import key, mix

_NUM_ROUNDS = 8


class Permutation:
    """A random order of range(size), evaluated at any index in O(1) time and memory.

    A balanced Feistel network on the smallest domain 4^h ≥ size, restricted to range(size) by walking its cycles
    (Black and Rogaway 2002): at most four applications a number on average.
    """

    def __init__(self, size: int, order: np.uint64):
        self.size = size
        self.half_bits = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
        self.mask = (np.uint64(1) << self.half_bits) - np.uint64(1)
        self.round_keys = mix(order + np.arange(_NUM_ROUNDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The examples at these positions of the order. [N] int64 → [N] int64"""
        images = self._encipher(positions.astype(np.uint64))
        outside = np.flatnonzero(images >= self.size)
        while len(outside):
            images[outside] = self._encipher(images[outside])
            outside = outside[images[outside] >= self.size]
        return images.astype(np.int64)

    def _encipher(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self.half_bits, numbers & self.mask
        for round_key in self.round_keys:
            left, right = right, left ^ (mix(right ^ round_key) & self.mask)
        return (left << self.half_bits) | right


@dataclass(frozen=True)
class MicroBatch:
    """What one call of the loader assembles: `examples` [B] of `epoch`; none where a rank has no share of the tail."""

    epoch: int
    examples: np.ndarray


class Schedule(Sampler[MicroBatch]):
    """This rank's micro-batches, epoch by epoch.

    The micro-batches of all ranks at one position are one stretch of the epoch's order, so the examples of an optimizer
    step depend on the global batch size alone. The last stretch of an epoch is shared out as evenly as it goes.

    shuffled=False gives the examples as they lie, every epoch alike (validation).
    """

    def __init__(
        self, num_examples: int, batch_size: int, seed: int, shuffled: bool, rank: int = 0, world_size: int = 1
    ):
        self.num_examples, self.batch_size = num_examples, batch_size
        self.seed, self.shuffled = seed, shuffled
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self._start = (0, 0)  # (epoch, position) where iteration begins

    def __len__(self) -> int:
        """Micro-batches of a whole epoch."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    def start(self, epoch: int, position: int) -> None:
        """Lets iteration begin at a micro-batch of an epoch instead of at the very first."""
        self.epoch, self._start = epoch, (epoch, position)

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer at the start of each epoch."""
        self.epoch = epoch

    def micro_batch(self, epoch: int, position: int) -> MicroBatch:
        """This rank's micro-batch at a position of an epoch."""
        stretch = self.batch_size * self.world_size
        start, stop = position * stretch, min((position + 1) * stretch, self.num_examples)
        mine = [start + (stop - start) * rank // self.world_size for rank in (self.rank, self.rank + 1)]
        positions = np.arange(*mine)
        if not self.shuffled:
            return MicroBatch(0, positions)
        return MicroBatch(epoch, Permutation(self.num_examples, key(self.seed, "order", epoch))(positions))

    def __iter__(self) -> Iterator[MicroBatch]:
        start_epoch, start = self._start
        for position in range(start if start_epoch == self.epoch else 0, len(self)):
            yield self.micro_batch(self.epoch, position)
