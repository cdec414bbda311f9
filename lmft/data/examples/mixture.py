"""Examples of several sources, mixed by their weights."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from lmft.data.examples.base import Examples
from lmft.errors import UserError
from lmft.objectives.base import SPECIAL, Rows


class MixedExamples:
    """The examples of all sources, numbered in order; an epoch holds a fixed number of each source's.

    Its length is that of an epoch. `rows` takes numbers from 0 to S, the number of all examples, and
    the same numbers + S, + 2 S and so on, which are the same examples with other noise.
    """

    def __init__(self, sources: Mapping[str, Examples], counts: Sequence[int], pad_id: int):
        """Create the examples.

        Args:
            sources: the examples of each source.
            counts: examples of each source in an epoch.
            pad_id: the padding token.
        """
        self.sources = dict(sources)
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
            self.lengths = np.concatenate([_lengths(part) for part in parts])

    def __len__(self) -> int:
        return sum(self.counts)

    def rows(self, examples: np.ndarray) -> Rows:
        """Return the examples with these numbers [B] as one rectangle, padded to the longest."""
        numbers = examples % self._firsts[-1]
        sources = np.searchsorted(self._firsts, numbers, side="right") - 1
        parts = []
        places = []
        for source, part in enumerate(self.sources.values()):
            its = np.flatnonzero(sources == source)
            if len(its):
                parts.append(part.rows(numbers[its] - self._firsts[source]))
                places.append(its)
        return _merged(parts, places, examples, self.pad_id)


def _lengths(examples: Examples) -> np.ndarray:
    """Return the tokens of each example, read from them if they hardly differ. [examples]"""
    if examples.lengths is not None:
        return examples.lengths
    starts = range(0, len(examples), 1024)  # at a time, so that memory stays constant
    numbers = (np.arange(start, min(start + 1024, len(examples))) for start in starts)
    return np.concatenate([examples.rows(some).lengths for some in numbers])


def _merged(parts: list[Rows], places: list[np.ndarray], numbers: np.ndarray, pad_id: int) -> Rows:
    """Return the rows of several sources as one rectangle.

    Args:
        parts: rows of each source.
        places: where these stand among all rows.
        numbers: [B] numbers of the examples, which name their noise.
        pad_id: the padding token.
    """
    num_rows = len(numbers)
    width = max(part.tokens.shape[1] for part in parts)
    fill = {"tokens": pad_id, "flags": SPECIAL, "documents": -1, "trainable": False, "num_seen": 0}
    arrays: dict[str, np.ndarray] = {"lengths": np.zeros(num_rows, np.int64)}
    for field in fields(Rows):
        values = [getattr(part, field.name) for part in parts]
        known = [value for value in values if isinstance(value, np.ndarray)]
        if field.name == "numbers" or not known:
            continue
        shape = (num_rows, width)[: known[0].ndim]
        merged = np.full(shape, fill.get(field.name, 0), known[0].dtype)
        for part, value, where in zip(parts, values, places, strict=True):
            if value is None and field.name == "trainable":  # every token may be a target
                value = np.arange(part.tokens.shape[1]) < part.lengths[:, None]
            if value is None:
                continue
            if value.ndim == 2:
                merged[where, : value.shape[1]] = value
            else:
                merged[where] = value
        arrays[field.name] = merged
    return Rows(**arrays, numbers=numbers, isolated=parts[0].isolated, are_lines=parts[0].are_lines)  # type: ignore[arg-type]


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
