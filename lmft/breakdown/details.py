"""The content of details.json: losses before and after training, by class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.breakdown.changes import Changes
from lmft.breakdown.classes import FREQUENCY_CLASSES, length_classes, position_classes
from lmft.breakdown.extremes import changed_documents, changed_tokens, points
from lmft.breakdown.intervals import INTERVAL, NUM_SAMPLES
from lmft.breakdown.measurement import Measurement
from lmft.breakdown.sums import Sums
from lmft.data.examples.documents import Documents

VERSION = 1


@dataclass(frozen=True)
class Text:
    """A validation text whose losses are compared."""

    name: str
    weight: float
    """Its part in `val/loss`."""
    documents: Documents


@dataclass(frozen=True)
class Context:
    """Holds what the sums are read with."""

    texts: Sequence[Text]
    counts: np.ndarray | None
    """[V] how often each token occurs in the training text; None if that is not known."""
    decode: Callable[[Sequence[int]], str]
    seed: int = 0


def compared(
    before: Measurement | None, after: Measurement, context: Context, which: str
) -> dict[str, Any]:
    """Return the content of details.json; docs/numbers.md defines its numbers.

    Args:
        before: the validation before training; None if there was none.
        after: the one that it is compared with.
        context: the validation texts, and what tokens are.
        which: `latest`, or `exported` if `after` is of the weights in model/.
    """
    known = {} if before is None else before.texts
    wholes = []
    texts = []
    for number, text in enumerate(context.texts):
        sums = after.texts[text.name]
        earlier = _of_same_targets(known.get(text.name), sums)
        whole = _whole(earlier, sums, context.seed + number)
        wholes.append((text.weight, whole))
        texts.append({"name": text.name, "weight": text.weight, **whole.record(0)})
        texts[-1] |= _details(text, earlier, sums, context, context.seed + number)
    return {
        "version": VERSION,
        "which": which,
        "steps": {"before": None if before is None else before.step, "after": after.step},
        "interval": INTERVAL,
        "samples": NUM_SAMPLES,
        "overall": Changes.mean(wholes).record(0),
        "texts": texts,
    }


def _of_same_targets(before: Sums | None, after: Sums) -> Sums | None:
    """Return the sums before, if their targets are the same; a limit may have changed them."""
    if before is None:
        return None
    before.widen(after.positions_per_range)
    ways = ("document_targets", "token_targets", "position_targets")
    same = all(np.array_equal(before.arrays[way], after.arrays[way]) for way in ways)
    return before if same else None


def _changes(way: str, before: Sums | None, after: Sums, seed: int) -> Changes:
    """Return the changes of the classes of `class` or `position`."""
    earlier = None if before is None else before.arrays[f"{way}_nats"]
    arrays = after.arrays
    return Changes.of(
        earlier, arrays[f"{way}_nats"], arrays[f"{way}_targets"], seed, after.has_documents
    )


def _whole(before: Sums | None, after: Sums, seed: int) -> Changes:
    """Return the change of a whole text, as that of its only class."""
    earlier = None if before is None else before.arrays["position_nats"].sum(axis=1, keepdims=True)
    nats = after.arrays["position_nats"].sum(axis=1, keepdims=True)
    targets = after.arrays["position_targets"].sum(axis=1, keepdims=True)
    return Changes.of(earlier, nats, targets, seed, after.has_documents)


def _by_length(text: Text, before: Sums | None, after: Sums, seed: int) -> list[dict[str, Any]] | None:
    if not after.has_documents:
        return None
    numbers, classes = length_classes(text.documents.lengths)
    shape = after.num_groups, len(classes)
    index = np.arange(len(numbers)) % shape[0] * shape[1] + numbers  # [documents]

    def grouped(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, shape[0] * shape[1]).reshape(shape)

    targets = after.arrays["document_targets"]
    earlier = None if before is None else grouped(before.arrays["document_nats"])
    nats = grouped(after.arrays["document_nats"])
    changes = Changes.of(earlier, nats, grouped(targets).astype(np.int64), seed, True)
    num_documents = np.bincount(numbers[targets > 0], minlength=len(classes))
    return changes.bins(classes, num_documents)


def _details(
    text: Text, before: Sums | None, after: Sums, context: Context, seed: int
) -> dict[str, Any]:
    positions = _changes("position", before, after, seed)
    ranges = position_classes(positions.num_classes, after.positions_per_range)
    by_frequency = None
    if context.counts is not None:
        by_frequency = _changes("class", before, after, seed).bins(FREQUENCY_CLASSES)
    num_points = 1000 // len(context.texts)
    return {
        **_verdicts(before, after),
        "by_frequency": by_frequency,
        "by_position": positions.bins(ranges),
        "by_length": _by_length(text, before, after, seed),
        "tokens": changed_tokens(before, after, context.counts, context.decode),
        "documents_changed": changed_documents(before, after, text.documents, context.decode),
        "points": points(before, after, num_points),
    }


def _verdicts(before: Sums | None, after: Sums) -> dict[str, int | None]:
    """Return how many documents there are, and how many of them became better and worse."""
    counts: dict[str, int | None] = dict.fromkeys(("documents", "better", "worse"))
    if not after.has_documents:
        return counts
    counts["documents"] = int((after.arrays["document_targets"] > 0).sum())
    if before is not None:
        changes = after.arrays["document_nats"] - before.arrays["document_nats"]
        counts["better"] = int((changes < 0).sum())
        counts["worse"] = int((changes > 0).sum())
    return counts
