"""Examples of several sources, mixed by their weights."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import numpy as np

from lmft.data.examples.base import Examples
from lmft.data.examples.column import Column
from lmft.errors import UserError
from lmft.objectives.base import SPECIAL, Rows


class MixedExamples:
    """The examples of all sources, numbered in order; an epoch holds a fixed number of each source's.

    Its length is that of an epoch. `rows` takes numbers from 0 to S, the number of all examples, and
    the same numbers + S, + 2 S and so on, which are the same examples with other noise, or with the same
    if the noise is fixed.
    """

    def __init__(
        self,
        sources: Mapping[str, Examples],
        counts: Sequence[int],
        pad_id: int,
        fixed_noise: bool = False,
    ):
        """Create the examples.

        Args:
            sources: the examples of each source.
            counts: examples of each source in an epoch.
            pad_id: the padding token.
            fixed_noise: True: an example that comes up again has the same noise.
        """
        self.sources = dict(sources)
        self.fixed_noise = fixed_noise
        self.counts = list(counts)
        self.pad_id = pad_id
        parts = [*self.sources.values()]
        self.sizes = [len(part) for part in parts]
        self._firsts = np.concatenate([[0], np.cumsum(self.sizes)])
        self.num_tokens = sum(part.num_tokens for part in parts)
        self.num_repeated = sum(part.num_repeated for part in parts)
        self.num_dropped = sum(part.num_dropped for part in parts)
        self.documents_cut = sum(part.documents_cut for part in parts)
        dropped: Counter[str] = Counter()
        for part in parts:
            dropped.update(part.documents_dropped)
        self.documents_dropped = dict(dropped)
        self.lengths = None
        if any(part.lengths is not None for part in parts):
            lengths = Column()
            for part in parts:
                for some in _lengths(part):
                    lengths.append(some)
            self.lengths = lengths.values()

    def __len__(self) -> int:
        return sum(self.counts)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return the examples with these numbers [B] as one rectangle, padded to the longest."""
        numbers = examples % self._firsts[-1]
        order = np.argsort(numbers, kind="stable")  # those of a source stand together
        ordered = numbers[order]
        bounds = np.searchsorted(ordered, self._firsts).tolist()
        parts = [
            part.rows(ordered[start:stop] - first)
            for part, first, start, stop in zip(
                self.sources.values(), self._firsts, bounds, bounds[1:], strict=False
            )
            if start < stop
        ]
        places = np.empty_like(order)  # [B] where each of the examples stands in that order
        places[order] = np.arange(len(order))
        names = numbers if self.fixed_noise else examples
        return _merged(parts, places, names, self.pad_id)

    def source_of(self, example: int) -> str:
        """Return the name of the source that an example is of."""
        number = example % self._firsts[-1]
        return [*self.sources][int(np.searchsorted(self._firsts, number, side="right")) - 1]

    def numbered(self) -> "MixedExamples":
        """Return the same mixture, whose rows tell each token's document."""
        mixture = copy(self)
        mixture.sources = {name: part.numbered() for name, part in self.sources.items()}
        return mixture


def _lengths(examples: Examples) -> Iterator[np.ndarray]:
    """Yield the tokens of each example, read from them if they hardly differ. [n] at a time"""
    for start in range(0, len(examples), 1024):
        numbers = np.arange(start, min(start + 1024, len(examples)))
        if examples.lengths is None:
            yield examples.rows(numbers).lengths
        else:
            yield examples.lengths[numbers]


def _merged(parts: list[Rows], places: np.ndarray, numbers: np.ndarray, pad_id: int) -> Rows:
    """Return the rows of several sources as one rectangle.

    Args:
        parts: rows of each source.
        places: [B] where each row of the result stands among those of all parts.
        numbers: [B] numbers of the examples, which name their noise.
        pad_id: the padding token.
    """
    width = max(part.tokens.shape[1] for part in parts)

    def joined(arrays: Sequence[np.ndarray], padding: int = 0) -> np.ndarray:
        if arrays[0].ndim == 2:
            arrays = [_widened(array, width, padding) for array in arrays]
        return np.concatenate(arrays).take(places, axis=0)

    optional = {}
    if any(part.trainable is not None for part in parts):
        optional["trainable"] = joined([_trainable(part) for part in parts])
    if parts[0].documents is not None:
        optional["documents"] = joined([_known(part.documents) for part in parts], -1)
    if any(part.num_seen is not None for part in parts):
        optional["num_seen"] = joined([_num_seen(part) for part in parts])
    return Rows(
        tokens=joined([part.tokens for part in parts], pad_id),
        flags=joined([part.flags for part in parts], int(SPECIAL)),
        lengths=joined([part.lengths for part in parts]),
        numbers=numbers,
        isolated=parts[0].isolated,
        are_lines=parts[0].are_lines,
        **optional,
    )


def _widened(array: np.ndarray, width: int, padding: int) -> np.ndarray:
    """Return an array [B, T] as [B, width], padded."""
    num_missing = width - array.shape[1]
    if not num_missing:
        return array
    return np.pad(array, ((0, 0), (0, num_missing)), constant_values=padding)


def _known(array: np.ndarray | None) -> np.ndarray:
    assert array is not None  # since all sources are cut in the same way
    return array


def _trainable(rows: Rows) -> np.ndarray:
    """Return which tokens may be targets. [B, T] bool"""
    if rows.trainable is not None:
        return rows.trainable
    return np.arange(rows.tokens.shape[1]) < rows.lengths[:, None]


def _num_seen(rows: Rows) -> np.ndarray:
    """Return each row's tokens that the previous window holds too. [B]"""
    if rows.num_seen is not None:
        return rows.num_seen
    return np.zeros(len(rows.lengths), np.int64)


def examples_per_epoch(
    sources: Mapping[str, Examples], weights: Mapping[str, float], epoch: str | int | None
) -> dict[str, int]:
    """Return how many examples of each source an epoch holds.

    Args:
        sources: the examples of each source.
        weights: each source's share of the examples; they need not add up to 1.
        epoch: name of the source that an epoch goes through once; or an epoch's tokens; None: as many as
            make no example come up twice.

    Raises: UserError if a source would have none.
    """
    total = sum(weights.values())
    shares = {name: weights[name] / total for name in sources}
    if isinstance(epoch, str):
        size = len(sources[epoch]) / shares[epoch]
    elif epoch is not None:
        lengths = {name: examples.num_tokens / len(examples) for name, examples in sources.items()}
        size = epoch / sum(share * lengths[name] for name, share in shares.items())
    else:
        size = min(len(sources[name]) / share for name, share in shares.items())
    ideal = {name: size * share for name, share in shares.items()}
    counts = {name: math.floor(count + 1e-9) for name, count in ideal.items()}
    # What rounding leaves over goes to the largest remainders.
    num_left = round(sum(ideal.values())) - sum(counts.values())
    by_remainder = sorted(ideal, key=lambda name: counts[name] - ideal[name])
    for name in by_remainder[:num_left]:
        counts[name] += 1
    for name, count in counts.items():
        if not count:
            what = f"an epoch of {round(size)} examples has none of data.sources.{name}"
            raise UserError(what, f"weight={weights[name]:g}", "a larger weight, or a longer data.epoch")
    return counts
