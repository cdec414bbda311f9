"""A mixture of objectives: each text is corrupted in one of several ways."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences


@dataclass(frozen=True)
class Mixture(Denoising):
    """Each row of a batch gets one of the objectives, with a probability in proportion to its weight.

    So with UL2's denoisers (Tay et al. 2022). All are given texts of the same length: the longest that every
    one of them turns into an input that fits.
    """

    objectives: Sequence[Denoising]
    weights: Sequence[float]

    def __post_init__(self):
        if not self.objectives or len(self.objectives) != len(self.weights):
            raise ValueError(
                f"objective.objectives has {len(self.objectives)} entries and objective.weights {len(self.weights)}: "
                "each objective needs its weight"
            )
        for objective in self.objectives:
            if not isinstance(objective, Denoising):
                raise ValueError(
                    f"objective.objectives: {type(objective).__name__} cannot be part of a mixture"
                )
        if not all(0 <= weight < float("inf") for weight in self.weights) or not sum(self.weights):
            raise ValueError(f"objective.weights={list(self.weights)} must not be negative, nor all 0")

    def num_raw_tokens(self, block_size: int) -> int:
        """The longest text whose input has at most `block_size` tokens, whichever objective it gets."""
        return min(objective.num_raw_tokens(block_size) for objective in self.objectives)

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raises ValueError where one of the objectives cannot corrupt texts of up to so many tokens."""
        for objective in self.objectives:
            objective.check_text(vocabulary, num_tokens)

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Each row's inputs and targets by the objective that chance gives it."""
        bounds = np.cumsum(self.weights) / sum(self.weights)
        drawn = noise.bits("objective", np.zeros(1, np.int64))[:, 0] * 2.0**-64  # [B]
        chosen = np.minimum(np.searchsorted(bounds, drawn, side="right"), len(bounds) - 1)
        corrupted = []
        for number, objective in enumerate(self.objectives):
            some = np.flatnonzero(chosen == number)
            if len(some):
                corrupted.append(
                    (some, *objective.corrupt(select_rows(rows, some), vocabulary, NoiseOfSome(noise, some)))
                )
        members, inputs, targets = zip(*corrupted, strict=True)
        return merge_rows(members, inputs, vocabulary), merge_rows(members, targets, vocabulary)


@dataclass(frozen=True)
class NoiseOfSome:
    """The noise of some of the rows. Bits of theirs are the same, whoever asks."""

    noise: Noise
    members: np.ndarray  # [b] numbers of these rows

    def bits(self, stream: str, positions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Uniform uint64: [b, T] for all of them at positions [T], or [N] for the pairs (rows [N], positions
        [N]).
        """
        if rows is not None:
            return self.noise.bits(stream, positions, self.members[rows])
        pairs = np.tile(positions, len(self.members)), np.repeat(self.members, len(positions))
        return self.noise.bits(stream, *pairs).reshape(len(self.members), len(positions))


def select_rows(rows: Rows, members: np.ndarray) -> Rows:
    """Some of the rows, in a rectangle that is no wider than they need."""
    lengths = rows.lengths[members]
    width = lengths.max()
    rectangles = ("tokens", "flags", "documents", "trainable")
    given = {name: getattr(rows, name) for name in (*rectangles, "numbers", "num_seen")}
    parts = {name: whole[members] for name, whole in given.items() if whole is not None}
    parts |= {name: part[:, :width] for name, part in parts.items() if name in rectangles}
    return replace(rows, lengths=lengths, **parts)


def merge_rows(
    members: Sequence[np.ndarray], parts: Sequence[Sequences], vocabulary: Vocabulary
) -> Sequences:
    """The sequences of all rows, from those of groups of rows: members[i] are the numbers of the rows in
    parts[i].
    """
    num_rows, width = sum(map(len, members)), max(part.tokens.shape[1] for part in parts)
    tokens = np.full((num_rows, width), vocabulary.pad_id, dtype=np.int64)
    lengths = np.zeros(num_rows, np.int64)
    for some, part in zip(members, parts, strict=True):
        tokens[some, : part.tokens.shape[1]] = part.tokens
        lengths[some] = part.lengths
    return Sequences(tokens, lengths)
