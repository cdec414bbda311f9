"""A random order of any length, evaluated at any index without storing it."""

import numpy as np

from lmft.data.schedule.noise import mix

_NUM_ROUNDS = 8


class Permutation:
    """A random order of range(size), evaluated at any index in O(1) time and memory.

    A balanced Feistel network on the smallest domain 4^h ≥ size, restricted to range(size) by walking
    its cycles (Black and Rogaway 2002): at most four applications a number on average.
    """

    def __init__(self, size: int, order: np.uint64):
        self.size = size
        self.half_bits = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
        self.mask = (np.uint64(1) << self.half_bits) - np.uint64(1)
        self.round_keys = mix(
            order + np.arange(_NUM_ROUNDS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        )

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the numbers at these positions of the order. [N] int64 → [N] int64"""
        images = self._encipher(positions.astype(np.uint64))
        outside = np.flatnonzero(images >= self.size)
        while len(outside):
            images[outside] = self._encipher(images[outside])
            outside = outside[images[outside] >= self.size]
        return images.astype(np.int64)

    def _encipher(self, numbers: np.ndarray) -> np.ndarray:  # [N] uint64 → [N] uint64
        left = numbers >> self.half_bits
        right = numbers & self.mask
        for round_key in self.round_keys:
            mixed = left ^ (mix(right ^ round_key) & self.mask)
            left = right
            right = mixed
        return (left << self.half_bits) | right
