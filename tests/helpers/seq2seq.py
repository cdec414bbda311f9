"""What an objective made of rows for an encoder and a decoder, row by row."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import IGNORED, SENTENCE_END, SPECIAL, Rows, Vocabulary
from tests.helpers import rows as plain

PAD, EOS, START, MASK = plain.PAD, 1, 3, plain.MASK
SENTINELS = {f"<extra_id_{i}>": 99 - i for i in range(30)}  # downwards, as T5's
VOCABULARY = replace(plain.VOCABULARY, size=100, eos_id=EOS, ids=SENTINELS, decoder_start_id=START)


class Example(NamedTuple):
    """A row of a batch: what the encoder reads, what the decoder is given, and what it is to say where."""

    inputs: list[int]
    given: list[int]
    targets: dict[int, int]  # by decoder position

    @property
    def said(self) -> list[int]:
        """The targets, where every position is one."""
        assert list(self.targets) == list(range(len(self.targets)))
        return list(self.targets.values())


def examples_of(objective, rows: Rows, vocabulary: Vocabulary = VOCABULARY, seed: int = 0, epoch: int = 0):
    """Applies the objective, checks what holds of every batch, and takes it apart."""
    before = rows.tokens.copy(), rows.flags.copy()
    batch = objective(rows, vocabulary, TokenNoise(seed, epoch, rows.numbers))
    np.testing.assert_array_equal(rows.tokens, before[0])
    np.testing.assert_array_equal(rows.flags, before[1])
    assert all(array.dtype == np.int64 for array in batch.values())
    inputs, given = batch["input_ids"], batch["decoder_input_ids"]
    attended = batch.get("attention_mask", np.ones_like(inputs))
    assert attended.shape == inputs.shape
    assert "attention_mask" not in batch or not attended.all() or inputs.shape[1] == 1  # that one may stand for nothing
    assert (np.diff(attended, axis=1) <= 0).all()  # the padding comes last
    real = batch["targets"] != IGNORED
    assert (np.diff(real.astype(int)) <= 0).all()  # here too
    index, targets = batch["target_index"][real], batch["targets"][real]
    assert (np.diff(index) > 0).all()
    examples = []
    for row in range(len(inputs)):
        here = index // given.shape[1] == row
        by_column = dict(zip((index[here] % given.shape[1]).tolist(), targets[here].tolist(), strict=True))
        examples.append(Example(inputs[row][attended[row] == 1].tolist(), given[row].tolist(), by_column))
        assert given[row, 0] == vocabulary.decoder_start_id
        assert all(given[row, column + 1] == target for column, target in by_column.items() if column + 1 in by_column)
    return examples


def with_ends(rows: Rows, ends: tuple[int, ...] = (5, 6)) -> Rows:
    """The rows, with these ordinary tokens flagged as ends of sentences."""
    is_end = np.isin(rows.tokens, ends) & ((rows.flags & SPECIAL) == 0)
    return replace(rows, flags=rows.flags | np.where(is_end, SENTENCE_END, np.uint8(0)))


def texts_of(rows: Rows) -> list[list[int]]:
    """Each row's tokens without padding."""
    return [tokens[:length].tolist() for tokens, length in zip(rows.tokens, rows.lengths, strict=True)]


def numbered(num: int, length: int) -> Rows:
    """Rows without special tokens, in which the token at a column is 100 + column."""
    tokens = np.tile(100 + np.arange(length), (num, 1))
    return Rows(tokens, np.zeros(tokens.shape, np.uint8), np.full(num, length), np.arange(num))
