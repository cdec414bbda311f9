"""Labelled rows: texts with their labels, and which of them are held out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lmft.data.config import DataConfig, Split
from lmft.data.schedule.noise import key
from lmft.data.schedule.permutation import Permutation
from lmft.data.sources.cleaning import clean_rows
from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import value_of
from lmft.data.sources.source import open_source
from lmft.errors import UserError, did_you_mean

_FEWEST = 5  # rows of each class for training, and as many to be held out
_MOST_CLASSES = 1000
_SHOWN = 5


@dataclass
class LabelledRows:
    """Texts and their labels, in the order of the rows."""

    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """Rows left out, and texts cleaned, by reason."""

    def __len__(self) -> int:
        return len(self.texts)

    def taken(self, numbers: Sequence[int] | np.ndarray) -> "LabelledRows":
        """Return the rows with these numbers."""
        return LabelledRows([self.texts[i] for i in numbers], [self.labels[i] for i in numbers])


def read_labelled(data: DataConfig, split: Split, label: str) -> LabelledRows:
    """Read the texts of a split and the column `label`; rows without a text or a label are counted.

    Raises: UserError if no row can be read, or one has no such column.
    """
    source = open_source(data, split)
    if source is None:
        raise UserError("there is no labelled text", fix="data.train=FILE.csv")
    row_text = RowText.from_config(data)
    rows = LabelledRows()

    def read(row: dict[str, Any]) -> tuple[str, str | None] | None:
        text = row_text.of([_value(row, column) for column in row_text.columns])
        return None if text is None else (text, _label(_value(row, label), label))

    tally = source.tally()
    for _, (text, value) in clean_rows(source, read, tally):
        if text.isspace() or not text:
            tally.counts["blank"] += 1
        elif value is None:
            tally.counts["without a label"] += 1
        else:
            rows.texts.append(text)
            rows.labels.append(value)
    rows.counts += tally.counts
    if not len(rows):
        reasons = ", ".join(f"{count} {reason}" for reason, count in rows.counts.items())
        raise UserError(f"no row has a text and a label ({reasons or 'no rows'})", source.name)
    return rows


def _value(row: dict[str, Any], column: str) -> Any:
    try:
        return value_of(row, column)
    except KeyError:
        hint = did_you_mean(column, row)
        what = f"there is no column '{column}'{hint}"
        fix = f"label=COLUMN and data.text_column=COLUMN, of {', '.join(row)}"
        raise UserError(what, fix=fix) from None


def _label(value: Any, column: str) -> str | None:
    """Return a label as text; None if there is none."""
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0, as a column of numbers with gaps is read
    if not isinstance(value, str | int | float):
        what = f"column '{column}' holds a {type(value).__name__}, and a label is a word or a number"
        raise UserError(what, fix="label=COLUMN, or label=COLUMN.NAME for what is nested in one")
    return str(value).strip()


def held_out_rows(rows: LabelledRows, share: float, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Split rows into those to train on and those held out: of each class the same share, by seed.

    A text that stands in several rows counts once, in its first row, so that no text is on both sides.

    Raises: UserError if the labels are no classes, or a class has too few rows.
    """
    first = {text: number for number, text in reversed(list(enumerate(rows.texts)))}
    numbers = np.array(sorted(first.values()))
    repeated = len(rows) - len(numbers)
    if repeated:
        rows.counts["with a text that came before"] = repeated
    labels = np.array(rows.labels)[numbers]
    check_classes(labels.tolist())
    trained: list[int] = []
    held_out: list[int] = []
    for name in sorted(set(labels.tolist())):
        of_class = numbers[labels == name]
        order = Permutation(len(of_class), key(seed, "probe", name))(np.arange(len(of_class)))
        num_held_out = max(_FEWEST, round(share * len(of_class)))
        if len(of_class) - num_held_out < _FEWEST:
            what = (
                f"class '{name}' has {len(of_class)} different texts: too few to train and to measure on"
            )
            fix = f"at least {2 * _FEWEST} rows of each class, or a smaller test_fraction"
            raise UserError(what, fix=fix)
        held_out += of_class[order[:num_held_out]].tolist()
        trained += of_class[order[num_held_out:]].tolist()
    return rows.taken(sorted(trained)), rows.taken(sorted(held_out))


def check_classes(labels: Sequence[str]) -> None:
    """Raise UserError if labels are all the same, or nearly all different."""
    counts = Counter(labels)
    if len(counts) == 1:
        what = f"every row has the label '{labels[0]}': there is nothing to tell apart"
        raise UserError(what, fix="label=COLUMN of at least two classes")
    if len(counts) > min(_MOST_CLASSES, len(labels) / 2):
        shown = ", ".join(list(counts)[:_SHOWN])
        what = f"the labels have {len(counts):,} values in {len(labels):,} rows ({shown}, …): no classes"
        raise UserError(what, fix="label=COLUMN of a few classes, each in several rows")


def without_seen(rows: LabelledRows, trained: LabelledRows) -> LabelledRows:
    """Return the rows of a validation text whose texts are not trained on; count the others.

    Raises: UserError if too few are left, or a label is not among those trained on.
    """
    seen = set(trained.texts)
    kept = rows.taken([i for i, text in enumerate(rows.texts) if text not in seen])
    kept.counts = rows.counts
    if len(kept) < len(rows):
        kept.counts["with a text that is trained on"] = len(rows) - len(kept)
    unknown = sorted(set(kept.labels) - set(trained.labels))
    if unknown:
        what = (
            f"labels of the validation text that the training text lacks: {', '.join(unknown[:_SHOWN])}"
        )
        raise UserError(what, fix="leave data.validation out: a share of the rows is then held out")
    if len(kept) < 2 * _FEWEST:
        what = f"the validation text has {len(kept)} rows that are not trained on: too few to measure"
        raise UserError(what, fix="more rows, or leave data.validation out")
    return kept
