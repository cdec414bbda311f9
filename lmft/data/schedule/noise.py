"""Counter-based randomness: a number is a hash of what it is for, never the state of a generator.

So workers, ranks, batch sizes and resuming cannot change it. The hash is the output function of SplitMix64
(Steele et al. 2014, with the constants of Stafford's "variant 13"), applied once per part of the name and
once per token.
"""

import hashlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: the stride of SplitMix64's counter
_MUL1, _MUL2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


def mix(bits: np.ndarray) -> np.ndarray:
    """A bijection of uint64 that scatters neighbours all over the range; overwrites its argument and returns
    it.
    """
    bits ^= bits >> _S30
    bits *= _MUL1
    bits ^= bits >> _S27
    bits *= _MUL2
    bits ^= bits >> _S31
    return bits


def key(*parts: int | str) -> np.uint64:
    """One uint64 for a name such as (seed, "order", epoch)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


class TokenNoise:
    """Random bits of the tokens of some examples: a hash of (seed, stream, epoch, example, position).

    examples: [B] numbers of the examples in their split. Validation is given the same epoch at every pass.

    >>> noise = TokenNoise(seed=1, epoch=0, examples=np.array([7, 8]))
    >>> again = TokenNoise(seed=1, epoch=0, examples=np.array([8]))
    >>> bool((noise.bits("select", np.arange(4))[1] == again.bits("select", np.arange(4))[0]).all())
    True
    """

    def __init__(self, seed: int, epoch: int, examples: np.ndarray):
        self.seed, self.epoch, self.examples = seed, epoch, examples.astype(np.uint64)

    def bits(self, stream: str, positions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Uniform uint64: [B, T] for all rows at positions [T], or [N] for the pairs (rows [N], positions
        [N]).
        """
        row_keys = mix(self.examples * _GOLDEN + key(self.seed, stream, self.epoch))  # [B]
        counters = (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
        return mix(row_keys[:, None] + counters if rows is None else row_keys[rows] + counters)
