"""A mixture of objectives: each text is corrupted in one of several ways."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmft.objectives.base import Noise, Rows, Vocabulary
from lmft.objectives.denoising import Denoising, Sequences


@dataclass(frozen=True)
class Mixture(Denoising):
    """Each row of a batch gets one of several objectives, with probability proportional to its weight.

    Example: UL2's denoisers (Tay et al. 2022). All objectives get texts of the same length, the longest
    from which each of them makes an input that fits.
    """

    objectives: Sequence[Denoising]
    weights: Sequence[float]

    def __post_init__(self):
        if not self.objectives or len(self.objectives) != len(self.weights):
            sizes = f"{len(self.objectives)} entries and objective.weights {len(self.weights)}"
            raise ValueError(f"objective.objectives has {sizes}: each objective needs its weight")
        for objective in self.objectives:
            if not isinstance(objective, Denoising):
                name = type(objective).__name__
                raise ValueError(f"objective.objectives: {name} cannot be part of a mixture")
        if not all(0 <= weight < float("inf") for weight in self.weights) or not sum(self.weights):
            raise ValueError(f"objective.weights={list(self.weights)} must not be negative, nor all 0")

    @property
    def needs_sentence_ends(self) -> bool:
        """True if one of the objectives does."""
        return any(objective.needs_sentence_ends for objective in self.objectives)

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """Return the special tokens that any of the objectives needs."""
        return [token for objective in self.objectives for token in objective.new_tokens(known)]

    def num_raw_tokens(self, block_size: int) -> int:
        """Return the length of the longest text from which every objective makes an input that fits."""
        return min(objective.num_raw_tokens(block_size) for objective in self.objectives)

    def check_text(self, vocabulary: Vocabulary, num_tokens: int) -> None:
        """Raise ValueError if one of the objectives cannot corrupt texts of up to `num_tokens`
        tokens.
        """
        for objective in self.objectives:
            objective.check_text(vocabulary, num_tokens)

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> tuple[Sequences, Sequences]:
        """Return each row's inputs and targets, made by an objective drawn at random."""
        bounds = np.cumsum(self.weights) / sum(self.weights)
        draws = noise.bits("objective", np.zeros(1, np.int64))[:, 0] * 2.0**-64  # [B]
        chosen = np.minimum(np.searchsorted(bounds, draws, side="right"), len(bounds) - 1)  # [B]
        groups = []
        for number, objective in enumerate(self.objectives):
            members = np.flatnonzero(chosen == number)
            if len(members):
                selected = select_rows(rows, members)
                corrupted = objective.corrupt(selected, vocabulary, NoiseOfSome(noise, members))
                groups.append((members, *corrupted))
        members, inputs, targets = zip(*groups, strict=True)
        return merge_rows(members, inputs, vocabulary), merge_rows(members, targets, vocabulary)


@dataclass(frozen=True)
class NoiseOfSome:
    """The noise of some rows of a batch; each keeps the bits it has in the whole batch."""

    noise: Noise
    members: np.ndarray  # [b] numbers of these rows in the batch

    def bits(self, stream: str, positions: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Return uniform uint64: [b, T] at positions [T], or [N] for pairs of rows [N] and positions
        [N].
        """
        num_rows = len(self.members)
        if rows is not None:
            return self.noise.bits(stream, positions, self.members[rows])
        all_rows = np.repeat(self.members, len(positions))
        bits = self.noise.bits(stream, np.tile(positions, num_rows), all_rows)
        return bits.reshape(num_rows, len(positions))


def select_rows(rows: Rows, members: np.ndarray) -> Rows:
    """Return the rows with these numbers [b], in a rectangle no wider than they need."""
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
    """Merge the sequences of groups of rows: members[i] are the numbers of the rows in parts[i]."""
    num_rows = sum(map(len, members))
    width = max(part.tokens.shape[1] for part in parts)
    tokens = np.full((num_rows, width), vocabulary.pad_id, dtype=np.int64)
    lengths = np.zeros(num_rows, np.int64)
    for numbers, part in zip(members, parts, strict=True):
        tokens[numbers, : part.tokens.shape[1]] = part.tokens
        lengths[numbers] = part.lengths
    return Sequences(tokens, lengths)
