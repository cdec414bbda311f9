"""Each token is predicted at the one before it, wherever it may be a target."""

import numpy as np
from hypothesis import given, settings

from lmft.data.schedule.noise import TokenNoise
from lmft.objectives.base import Rows
from lmft.objectives.causal import NextToken
from tests.helpers.rows import VOCABULARY, alone, drawn_documents, drawn_rows, found

few = settings(max_examples=100, deadline=None)


def batch_of(rows):
    return NextToken()(rows, VOCABULARY, TokenNoise(0, 0, rows.numbers))


def expected(rows):
    targets = []
    for row, length in enumerate(rows.lengths):
        for column in range(1, length):
            allowed = rows.trainable is None or rows.trainable[row, column]
            new = rows.num_seen is None or column >= rows.num_seen[row]
            begins = rows.isolated and rows.documents[row, column] != rows.documents[row, column - 1]
            if allowed and new and not begins:
                targets.append((row * rows.tokens.shape[1] + column - 1, int(rows.tokens[row, column])))
    return targets


@few
@given(rows=drawn_documents())
def test_targets_are_those_of_a_loop_over_rows(rows):
    batch = batch_of(rows)
    assert found(batch) == expected(rows)
    assert batch["input_ids"] is rows.tokens
    assert batch.keys() - {"target_index", "targets"} == {"input_ids", *(["document_ids"] if rows.isolated else [])}
    assert not rows.isolated or batch["document_ids"] is rows.documents


@few
@given(rows=drawn_rows())
def test_a_row_is_the_same_in_any_company(rows):
    width = rows.tokens.shape[1]
    together = found(batch_of(rows))
    for row in range(len(rows.lengths)):
        single = found(batch_of(alone(rows, row)))
        assert [(row * width + index, token) for index, token in single] == [
            each for each in together if each[0] // width == row
        ]


def test_an_end_of_text_is_learnt_though_padding_is_the_same_token():
    tokens = np.array([[9, 8, 2, 7, 2], [6, 2, 2, 2, 2]])  # 2 ends a text and pads
    rows = Rows(tokens, np.zeros(tokens.shape, np.uint8), np.array([5, 2]), np.arange(2))
    assert found(batch_of(rows)) == [(0, 8), (1, 2), (2, 7), (3, 2), (5, 2)]


def test_a_window_learns_only_what_the_one_before_did_not():
    tokens = np.arange(10, 16)[None]
    rows = Rows(tokens, np.zeros(tokens.shape, np.uint8), np.array([6]), np.arange(1), num_seen=np.array([4]))
    assert found(batch_of(rows)) == [(3, 14), (4, 15)]
