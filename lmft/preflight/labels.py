"""Text in the order of its labels, where only its beginning is used, or where it was cut in two.

lmft trains in an order of its own, chooses `data.max_train_examples` by seed and holds documents out
by their content, so the order of a file does not matter there. It matters for

- `trainer.limit_val_batches`: the first batches of the validation text are measured;
- a file that was cut into training and validation text by row.

Streamed text, of which `data.max_documents` takes the first rows, is not looked at: the store does not
keep its labels, and its rows would have to be read once more over the network.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lmft.data.config import DataConfig, Split
from lmft.data.schedule.layout import limited
from lmft.data.sources.source import open_source
from lmft.preflight.finding import Finding

_NAMES = ("label", "labels", "class", "category", "sentiment", "stars", "rating", "topic", "intent")
_MOST_ROWS = 100_000
_SECONDS = 1.0  # of reading, for each split
_MOST_LABELS = 50
_FEWEST_ROWS = 20
_SORTED = 0.2  # runs of one label, as a share of those in a random order, below which rows are sorted
_FAR_APART = 0.4  # largest difference of a label's share between two texts that is not warned about


@dataclass(frozen=True)
class Labels:
    """The labels of a split's first rows."""

    column: str
    values: list[str]
    is_whole: bool
    """Whether these are all rows."""

    @property
    def shares(self) -> dict[str, float]:
        """The share of each label."""
        return {label: count / len(self.values) for label, count in Counter(self.values).items()}

    @property
    def is_sorted(self) -> bool:
        """True if rows of one label stand together.

        In a random order each row but the first has another label than the one before with the
        probability 1 − Σ share² (Wald and Wolfowitz 1940).
        """
        num_changes = sum(a != b for a, b in zip(self.values, self.values[1:], strict=False))
        expected = (len(self.values) - 1) * (1 - sum(share**2 for share in self.shares.values()))
        return num_changes < _SORTED * expected


def read_labels(data: DataConfig, split: Split) -> Labels | None:
    """Return the labels of a split's rows; None if no column has the name of a label, or few labels.

    At most 100,000 rows are read, and for at most a second.
    """
    if data.format != "text" or data.streaming:
        return None
    source = open_source(data, split)
    if source is None:
        return None
    column = None
    values: list[str] = []
    end = time.monotonic() + _SECONDS
    is_whole = True
    for _, row in source.rows():
        column = column or next((name for name in row if str(name).lower() in _NAMES), None)
        if column is None or column in data.text_columns:
            return None
        if len(values) >= _MOST_ROWS or time.monotonic() > end:
            is_whole = False
            break
        values.append(str(row.get(column)))
    if column is None or len(values) < _FEWEST_ROWS or len({*values}) > _MOST_LABELS:
        return None
    return Labels(column, values, is_whole)


def sorted_labels(
    data: DataConfig, trainer: Mapping[str, Any], num_examples: int, name: str
) -> Finding | None:
    """Return a finding if validation takes the first batches of a text that is sorted by its labels.

    Args:
        data: the options of the text, or of a source of a mixture.
        trainer: the config's `trainer`.
        num_examples: of the validation text.
        name: what the finding is about: validation, or validation/NAME.
    """
    limit = trainer["limit_val_batches"]
    num_batches = -(-num_examples // data.batch_size)
    num_used = limited(num_batches, limit)
    if not 0 < num_used < num_batches:
        return None
    split: Split = "train" if open_source(data, "validation") is None else "validation"
    labels = read_labels(data, split)
    if labels is None or not labels.is_sorted:
        return None
    text = (
        f"{name}: rows are sorted by '{labels.column}', and trainer.limit_val_batches={limit} measures "
        f"the first {num_used / num_batches:.0%}"
    )
    fix = "data.max_validation_examples=N takes a random sample"
    return Finding("sorted", text, fix)


def other_labels(data: DataConfig, name: str) -> Finding | None:
    """Return a finding if the labels of validation and training text are shared out very differently.

    Args:
        data: the options of the text, or of a source of a mixture.
        name: what the finding is about: validation, or validation/NAME.
    """
    if open_source(data, "validation") is None:
        return None
    train = read_labels(data, "train")
    validation = read_labels(data, "validation")
    if train is None or validation is None or train.column != validation.column:
        return None
    if not (train.is_whole and validation.is_whole):
        return None
    before = train.shares
    after = validation.shares
    most = max({**before, **after}, key=lambda each: abs(after.get(each, 0) - before.get(each, 0)))
    shares = before.get(most, 0.0), after.get(most, 0.0)
    if abs(shares[1] - shares[0]) <= _FAR_APART:
        return None
    text = (
        f"{name}: {train.column}={most} has {shares[0]:.0%} of the {len(train.values):,} training rows "
        f"and {shares[1]:.0%} of the {len(validation.values):,} validation rows"
    )
    fix = "if a sorted file was cut in two, leave data.validation out; lmft holds rows out at random"
    return Finding("labels", text, fix)
