"""The tokens and the documents that changed most, and a sample of all documents."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lmft.breakdown.changes import losses
from lmft.breakdown.sums import Sums
from lmft.data.examples.documents import Documents

NUM_TOKENS = 20
NUM_DOCUMENTS = 10
MOST_CHARACTERS = 200
_MOST_TOKENS = 100  # of a document's beginning, decoded to show it
Decode = Callable[[Sequence[int]], str]


def changed_tokens(
    before: Sums | None, after: Sums, counts: np.ndarray | None, decode: Decode
) -> dict[str, list[dict[str, Any]]]:
    """Return the tokens whose nats changed most in total: {"gained": […], "lost": […]}.

    Args:
        before: sums before training; None: unknown, and there are no changes.
        after: sums after it.
        counts: [V] how often each occurs in the training text; None: unknown.
        decode: ids to text.
    """

    def described(token: int) -> dict[str, Any]:
        count = None if counts is None else int(counts[token])
        return {"text": decode([token]), "id": token, "training_count": count}

    return _extremes("token", before, after, NUM_TOKENS, described)


def changed_documents(
    before: Sums | None, after: Sums, documents: Documents, decode: Decode
) -> dict[str, list[dict[str, Any]]]:
    """Return the documents whose nats changed most in total; arguments as of `changed_tokens`."""

    def described(index: int) -> dict[str, Any]:
        start = documents.starts[index]
        length = int(documents.lengths[index])
        ids = documents.store.tokens[start : start + min(length, _MOST_TOKENS)]
        separators = [*documents.store.prefix, *documents.store.suffix]
        text = decode(ids[~np.isin(ids, separators)].tolist()).strip()[:MOST_CHARACTERS]
        return {"number": int(documents.numbers[index]), "text": text, "tokens": length}

    known = before if after.has_documents else None
    return _extremes("document", known, after, NUM_DOCUMENTS, described)


def points(before: Sums | None, after: Sums, most: int) -> dict[str, list[Any]] | None:
    """Return the losses of documents, evenly sampled if there are more than `most`.

    Returns: {"before": [n], "after": [n], "targets": [n]}; None if they are not known.
    """
    if before is None or not after.has_documents:
        return None
    measured = np.flatnonzero(after.arrays["document_targets"])
    chosen = measured[np.linspace(0, len(measured) - 1, min(most, len(measured))).astype(np.int64)]
    targets = after.arrays["document_targets"][chosen]
    nats = (sums.arrays["document_nats"][chosen] for sums in (before, after))
    earlier, later = ([float(f"{each:.6g}") for each in total / targets] for total in nats)
    return {"before": earlier, "after": later, "targets": targets.tolist()}


def _extremes(
    way: str,
    before: Sums | None,
    after: Sums,
    most: int,
    described: Callable[[int], dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    if before is None:
        return {"gained": [], "lost": []}
    earlier = before.arrays[f"{way}_nats"]
    later = after.arrays[f"{way}_nats"]
    targets = np.maximum(after.arrays[f"{way}_targets"], 1)
    changes = later - earlier
    order = np.argsort(changes, kind="stable")
    chosen = {"gained": order[:most], "lost": order[::-1][:most]}
    signs = {"gained": -1, "lost": 1}
    return {
        name: [
            {
                **described(int(index)),
                "nats": float(changes[index]),
                **losses(earlier / targets, later / targets, targets, int(index)),
            }
            for index in indices
            if changes[index] * signs[name] > 0
        ]
        for name, indices in chosen.items()
    }
