"""Paired bootstrap over documents: do two settings differ, whichever documents had been drawn?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmft.errors import UserError

_CHUNK = 4_000_000  # random numbers drawn at a time
FEWEST_DOCUMENTS = 10

Place = tuple[int, str, int]
"""The number of a document among those scored, its file's name and its row there."""


@dataclass(frozen=True)
class Scored:
    """A document's score by one model, or the mean of several."""

    nats: float
    tokens: float


@dataclass(frozen=True)
class Difference:
    """Nats of B minus nats of A, on the same documents; positive where A is better."""

    mean: float
    low: float
    high: float
    """Ends of the 95% interval."""
    unit: str
    """nats per token; nats per document if the vocabularies differ."""
    num_documents: int
    num_samples: int
    num_runs: tuple[int, int]
    """Runs of A and of B; the nats of a document are their mean."""

    def sentence(self, name: str, other: str) -> str:
        """Return the result in words, for two names."""
        size = f"{abs(self.mean):.4g} {self.unit}"
        ends = sorted((abs(self.low), abs(self.high)))
        text = f"95% of {self.num_samples:,} samples of the {self.num_documents:,} documents"
        if self.low <= 0 <= self.high:
            better = name if self.mean > 0 else other
            what = (
                f"{name} and {other} do not differ significantly: {better} is ahead by {size}, but "
                f"{text} lie between {self.low:+.4g} and {self.high:+.4g}"
            )
        else:
            better = (name, other) if self.mean > 0 else (other, name)
            what = (
                f"{better[0]} is better than {better[1]}, by {size}: {text} lie between {ends[0]:.4g} "
                f"and {ends[1]:.4g}"
            )
        if min(self.num_runs) == 1:
            return f"{what}. Other seeds might give another order, because a setting has only one run."
        return f"{what}."

    def record(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        return asdict(self)


def mean_of_runs(runs: Sequence[Mapping[Place, Scored]]) -> dict[Place, Scored]:
    """Return the mean score of each document over several runs. Raises: UserError if texts differ."""
    first = runs[0]
    for run in runs[1:]:
        _check_same_documents(first, run)
    return {
        place: Scored(
            math.fsum(run[place].nats for run in runs) / len(runs),
            math.fsum(run[place].tokens for run in runs) / len(runs),
        )
        for place in first
    }


def difference(
    a: Sequence[Mapping[Place, Scored]],
    b: Sequence[Mapping[Place, Scored]],
    num_samples: int,
    seed: int,
) -> Difference:
    """Compare two settings by a paired bootstrap over documents (Efron 1979; Koehn 2004).

    Each sample draws as many documents as there are, with replacement, the same for both settings. The
    interval holds the middle 95% of the samples' differences.

    Args:
        a: documents and scores of each run of A.
        b: those of B.
        num_samples: samples.
        seed: seed of the samples.

    Raises: UserError if the documents differ, or are too few.
    """
    of_a = mean_of_runs(a)
    of_b = mean_of_runs(b)
    _check_same_documents(of_a, of_b)
    places = list(of_a)
    if len(places) < FEWEST_DOCUMENTS:
        what = f"{len(places)} documents are too few: the bootstrap needs at least {FEWEST_DOCUMENTS}"
        raise UserError(what, fix="a larger max_documents, or runs with more validation text")
    gains = np.array([of_b[place].nats - of_a[place].nats for place in places])  # [N]
    tokens = np.array([of_a[place].tokens for place in places])  # [N]
    unit = "nats per token"
    if any(of_a[place].tokens != of_b[place].tokens for place in places):
        unit = "nats per document"
        tokens = np.ones(len(places))
    if not np.isfinite(gains).all():
        raise UserError("a model gives a document infinite or undefined nats", fix="other runs")
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            gains[drawn].sum(axis=1) / np.maximum(tokens[drawn].sum(axis=1), 1)
            for drawn in _draws(rng, len(places), num_samples)
        ]
    )
    low, high = np.quantile(means, [0.025, 0.975])
    mean = float(gains.sum() / max(tokens.sum(), 1))
    counts = (len(a), len(b))
    return Difference(mean, float(low), float(high), unit, len(places), num_samples, counts)


def _draws(rng: np.random.Generator, num_documents: int, num_samples: int) -> Any:
    """Yield the numbers of the documents drawn, a few samples at a time. [samples, N]"""
    at_a_time = max(1, _CHUNK // num_documents)
    for start in range(0, num_samples, at_a_time):
        count = min(at_a_time, num_samples - start)
        yield rng.integers(0, num_documents, (count, num_documents))


def _check_same_documents(a: Mapping[Place, Scored], b: Mapping[Place, Scored]) -> None:
    if a.keys() != b.keys():
        what = f"the runs have other validation documents: {len(a):,} and {len(b):,}"
        raise UserError(what, fix="two runs that were validated on the same text")
