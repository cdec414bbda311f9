"""An objective whose options change in the course of a training."""

from collections.abc import Collection, Mapping

import numpy as np

from lmft.objectives.base import Noise, Objective, Rows, Vocabulary


class Scheduled(Objective):
    """Objectives of one kind that take turns, each from its share of the training's steps on.

    Which one makes a batch follows from the batch's place in the training, so that it is the same after
    resuming. Examples are cut so that they fit all of them. Validation measures the last one, at every
    time, so that its losses can be compared.
    """

    def __init__(self, stages: Mapping[float, Objective]):
        """Create the objective. stages: {share of the training from which it holds: objective}."""
        self.stages = dict(sorted(stages.items()))

    @property
    def _last(self) -> Objective:
        return list(self.stages.values())[-1]

    # Objectives state these of their class; here they are those of the stages.

    @property
    def families(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The families of models that it can train."""
        return self._last.families

    @property
    def needs_word_starts(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if it reads the WORD_START flag."""
        return self._last.needs_word_starts

    @property
    def needs_documents(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if it reads Rows.documents."""
        return self._last.needs_documents

    @property
    def needs_pairs(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its rows hold a source and a target."""
        return self._last.needs_pairs

    @property
    def is_likelihood(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True if its losses add up to −log p of the text."""
        return self._last.is_likelihood

    @property
    def needs_sentence_ends(self) -> bool:
        """True if one of the stages does."""
        return any(stage.needs_sentence_ends for stage in self.stages.values())

    def for_family(self, family: str) -> Objective | None:
        """Return this objective's variant for models of a family; None if there is none."""
        fitting = {share: stage.for_family(family) for share, stage in self.stages.items()}
        known = {share: stage for share, stage in fitting.items() if stage is not None}
        return Scheduled(known) if len(known) == len(fitting) else None

    def for_validation(self) -> Objective:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the objective that validation measures: that of the end of the training."""
        return self._last.for_validation()

    def at(self, share: float) -> Objective:
        """Return the objective after this share of the training's steps."""
        return self.stages[max(start for start in self.stages if start <= share)]

    def num_raw_tokens(self, block_size: int) -> int:
        """Return the length of the longest text from which every stage makes an input that fits."""
        return min(stage.num_raw_tokens(block_size) for stage in self.stages.values())

    def new_tokens(self, known: Collection[str]) -> list[str]:
        """Return the special tokens that any of the stages needs."""
        tokens = [token for stage in self.stages.values() for token in stage.new_tokens(known)]
        return list(dict.fromkeys(tokens))

    def check(self, vocabulary: Vocabulary, block_size: int) -> None:
        """Raise ValueError if a stage cannot work with this vocabulary or inputs of this length."""
        for stage in self.stages.values():
            stage.check(vocabulary, block_size)

    def __call__(self, rows: Rows, vocabulary: Vocabulary, noise: Noise) -> dict[str, np.ndarray]:
        """Return the batch that the first stage makes; `at` gives the others."""
        return self.at(0.0)(rows, vocabulary, noise)
