"""Each token of a batch, followed to the column of its row that it was in."""

from dataclasses import dataclass

import numpy as np
import pytest

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import SPECIAL, Objective, Rows, Vocabulary, body_inputs, num_predictions, padded_targets
from lmft.objectives.following import NOWHERE, followed
from lmft.objectives.span_corruption import SpanCorruption

END = 3
IDS = {f"<extra_id_{number}>": 100 + number for number in range(9)}
VOCABULARY = Vocabulary(110, None, np.arange(10, 90), pad_id=0, eos_id=END, ids=IDS, decoder_start_id=0)
TOKENS = np.array([[7, 10, 10, 12, 10, 14, 15, END]])  # equal tokens in places of their own
ROWS = Rows(TOKENS, np.where(TOKENS < 10, SPECIAL, 0).astype(np.uint8), np.array([8]), np.array([0]), are_lines=True)


@dataclass(frozen=True)
class Backwards(Objective):
    """Of a user: reads the row from its end, and predicts the first token."""

    table: tuple[int, ...] = ()
    families = ("masked",)

    def __call__(self, rows, vocabulary, noise):
        for token in self.table and rows.tokens.ravel():
            assert self.table[token] >= 0
        first = padded_targets(np.zeros(1, np.int64), rows.tokens[0, :1])
        return body_inputs(rows, rows.tokens[:, ::-1].copy()) | first


def follow(objective):
    noise = TokenNoise(1, 0, ROWS.numbers)
    batch = objective(ROWS, VOCABULARY, noise)
    return batch, followed(objective, ROWS, VOCABULARY, noise, batch)


def test_equal_tokens_are_told_apart():
    _, (columns, is_followed) = follow(Backwards())
    assert columns["input_ids"][0].tolist() == [NOWHERE, 6, 5, 4, 3, 2, 1, 0]  # the end is not followed
    assert columns["targets"][:2].tolist() == [0, NOWHERE]
    assert is_followed[0].tolist() == [True] * 7 + [False]


def test_an_objective_that_looks_for_the_end_of_the_text_is_followed():
    batch, (columns, _) = follow(SpanCorruption(0.4, 2.0))
    for name in ("input_ids", "targets"):
        of_text = columns[name] != NOWHERE
        np.testing.assert_array_equal(TOKENS[0, columns[name][of_text]], batch[name][of_text])
    both = [*columns["input_ids"].ravel(), *columns["targets"]]
    assert sorted(column for column in both if column != NOWHERE) == [*range(7)]


def test_an_objective_that_looks_ids_up_is_not_followed():
    assert follow(Backwards(table=(0,) * VOCABULARY.size))[1] is None


@pytest.mark.parametrize(("name", "width"), [("input_ids", 7), ("decoder_input_ids", 5), ("target_mapping", 3)])
def test_predictions_are_counted_by_the_last_of_a_models_inputs(name, width):
    arrays = {"input_ids": np.zeros((2, 7)), name: np.zeros((2, width, 7))}
    assert num_predictions(arrays) == width
