"""The rows of a batch one by one, as plain arrays, each with the text that it was made of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lmft.data.batch import Batch
from lmft.objectives.base import ANSWER, IGNORED, WORD_START, Rows
from lmft.verification.plain import num_predictions


@dataclass(frozen=True)
class Row:
    """A row of a batch, and its text."""

    text: np.ndarray  # [L] tokens of the example
    is_learnt: np.ndarray  # [L] bool: tokens that may be targets
    is_answer: np.ndarray  # [L] bool: of a pair, the target's
    begins_word: np.ndarray  # [L] bool
    documents: np.ndarray | None  # [L] if documents are kept apart
    num_seen: int  # leading tokens that the window before holds too
    is_line: bool  # the text has its separators around it
    inputs: dict[str, np.ndarray]  # of the row, padding included
    num_inputs: int  # tokens of `input_ids` that are not padding
    columns: np.ndarray  # [K] positions that predict
    targets: np.ndarray  # [K] what they predict

    @property
    def shown(self) -> np.ndarray:
        """The tokens that the model, or its encoder, reads."""
        return self.inputs["input_ids"][: self.num_inputs]


def rows_of(batch: Batch, made_of: Rows) -> Iterator[Row]:
    """Yield the rows of a batch, each with the example that it was made of."""
    inputs = {name: _array(value) for name, value in batch.inputs.items()}
    is_target = _array(batch.targets) != IGNORED
    index = _array(batch.target_index)[is_target]
    targets = _array(batch.targets)[is_target]
    width = num_predictions(inputs)
    for number, length in enumerate(made_of.lengths):
        is_its = index // width == number
        own = {name: value[number] for name, value in inputs.items()}
        num_inputs = own["input_ids"].shape[0]
        if "attention_mask" in own:
            num_inputs = int(own["attention_mask"].sum())
        elif "document_ids" in own:
            num_inputs = int((own["document_ids"] >= 0).sum())
        elif "decoder_input_ids" not in own:
            num_inputs = min(num_inputs, int(length))
        yield Row(
            text=made_of.tokens[number, :length],
            is_learnt=_learnt(made_of, number, length),
            is_answer=(made_of.flags[number, :length] & ANSWER) != 0,
            begins_word=(made_of.flags[number, :length] & WORD_START) != 0,
            documents=None if made_of.documents is None else made_of.documents[number, :length],
            num_seen=0 if made_of.num_seen is None else int(made_of.num_seen[number]),
            is_line=made_of.are_lines,
            inputs=own,
            num_inputs=num_inputs,
            columns=index[is_its] % width,
            targets=targets[is_its],
        )


def _learnt(rows: Rows, number: int, length: int) -> np.ndarray:
    if rows.trainable is None:
        return np.ones(length, bool)
    return rows.trainable[number, :length]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()
