"""Counter-based random numbers: each is a hash of its purpose and position; no generator state exists.

So workers, ranks, batch sizes and resuming cannot change it. The hash is the output function of
SplitMix64 (Steele et al. 2014, with the constants of Stafford's "variant 13"), applied once per example
and once per token.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the stride of SplitMix64's counter
# Multipliers and shifts of SplitMix64's output function.
_MUL1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL2 = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)


def mix(bits: np.ndarray) -> np.ndarray:
    """Scatter uint64 over the whole range by a bijection; overwrite and return `bits`.

    Any shape.
    """
    bits ^= bits >> _S30
    bits *= _MUL1
    bits ^= bits >> _S27
    bits *= _MUL2
    bits ^= bits >> _S31
    return bits


def key(*parts: int | str) -> np.uint64:
    """Hash a name such as (seed, "order", epoch) to one uint64."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


class TokenNoise:
    """Random bits of the tokens of B examples: a hash of (seed, stream, epoch, example, position).

    >>> noise = TokenNoise(seed=1, epoch=0, examples=np.array([7, 8]))
    >>> again = TokenNoise(seed=1, epoch=0, examples=np.array([8]))
    >>> bool((noise.bits("select", np.arange(4))[1] == again.bits("select", np.arange(4))[0]).all())
    True
    """

    def __init__(self, seed: int, epoch: int, examples: np.ndarray):
        """Create the noise of some examples.

        Args:
            seed: seed of the noise.
            epoch: the epoch; validation has the same one at every pass.
            examples: [B] numbers of the examples in their split.
        """
        self.seed = seed
        self.epoch = epoch
        self.examples = examples.astype(np.uint64)

    def bits(self, stream: str, positions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return uniform uint64: [B, T] at positions [T], or [N] for pairs of row and position."""
        row_keys = mix(self.examples * _GOLDEN + key(self.seed, stream, self.epoch))  # [B]
        counters = (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        if rows is None:
            return mix(row_keys[:, None] + counters)
        return mix(row_keys[rows] + counters)
