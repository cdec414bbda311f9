"""Hiding of chosen tokens, shared by the masked objectives on single tokens and on whole words."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from lmft.objectives.base import (
    SPECIAL,
    Noise,
    Objective,
    Rows,
    Vocabulary,
    body_inputs,
    padded_targets,
    threshold,
)


@dataclass(frozen=True)
class Masking(Objective):
    """Masked language modelling (Devlin et al. 2018).

    Most of the targets are shown as the mask token, some as a random token, the rest as they are.
    """

    mlm_probability: float = 0.15
    mask_share: float = 0.8
    random_share: float = 0.1
    validation_mlm_probability: float | None = None

    families = ("masked",)

    def __post_init__(self):
        for name in ("mlm_probability", "mask_share", "random_share", "validation_mlm_probability"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"objective.{name}={share} is not a share between 0 and 1")
            if share == 0 and name.endswith("mlm_probability"):
                raise ValueError(f"objective.{name}=0 leaves nothing to predict")
        if self.mask_share + self.random_share > 1:
            raise ValueError("objective.mask_share and objective.random_share add up to more than 1")

    def for_validation(self) -> Self:
        """Return this masking at `validation_mlm_probability`, if that is given."""
        share = self.validation_mlm_probability
        return self if share is None else replace(self, mlm_probability=share)

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if the tokenizer has no mask token."""
        if vocabulary.mask_id is None:
            raise ValueError("the tokenizer has no mask token, which masked objectives need")

    def hide(
        self, rows: Rows, chosen: np.ndarray, vocabulary: Vocabulary, noise: Noise
    ) -> dict[str, np.ndarray]:
        """Return the batch whose targets are the chosen tokens ([B, T] bool)."""
        row, column = np.nonzero(chosen)  # [N] each
        targets = rows.tokens[row, column]
        kind = noise.bits("kind", column, row)
        masked = kind < threshold(self.mask_share)
        random = ~masked & (kind < threshold(self.mask_share + self.random_share))
        draw = noise.bits("token", column[random], row[random]) % np.uint64(len(vocabulary.ordinary_ids))

        shown = targets.copy()
        shown[masked] = vocabulary.mask_id
        shown[random] = vocabulary.ordinary_ids[draw]
        tokens = rows.tokens.copy()
        tokens[row, column] = shown
        return body_inputs(rows, tokens) | padded_targets(row * tokens.shape[1] + column, targets)


def choose(bits: np.ndarray, candidates: np.ndarray, share: float) -> np.ndarray:
    """Return the tokens chosen: each candidate with probability `share`. [B, T] bool

    If none of a row's candidates is chosen, the one with the lowest bits is. Candidates of a row with
    the same bits are chosen together.

    Args:
        bits: [B, T] uniform uint64.
        candidates: [B, T] bool.
        share: probability of each candidate.
    """
    chosen = (bits < threshold(share)) & candidates
    empty = np.flatnonzero(~chosen.any(axis=1))
    if len(empty):
        nearest = np.where(candidates[empty], bits[empty], np.iinfo(np.uint64).max).min(
            axis=1, keepdims=True
        )
        # A row without candidates stays without targets.
        chosen[empty] = (bits[empty] == nearest) & candidates[empty]
    return chosen


def may_be_hidden(rows: Rows) -> np.ndarray:
    """Return the trainable tokens that are neither special nor padding. [B, T] bool"""
    ordinary = (rows.flags & SPECIAL) == 0
    return ordinary if rows.trainable is None else ordinary & rows.trainable
