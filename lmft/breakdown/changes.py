"""Losses of classes of targets before and after training, with intervals of their changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmft.breakdown.classes import Class
from lmft.breakdown.intervals import NUM_SAMPLES, bounds, sampled_changes


@dataclass(frozen=True)
class Changes:
    """Losses of classes, in nats per target."""

    before: np.ndarray | None
    """[C]; None if it is not known."""
    after: np.ndarray
    """[C] NaN for a class without targets."""
    targets: np.ndarray
    """[C]"""
    samples: np.ndarray
    """[samples, C] changes in samples of the documents; NaN where they are not known."""

    @classmethod
    def of(
        cls,
        before: np.ndarray | None,
        after: np.ndarray,
        targets: np.ndarray,
        seed: int,
        has_documents: bool,
    ) -> "Changes":
        """Sum the nats of documents, and sample the change.

        Args:
            before: [N, C] nats before training of each document (or group) and class; None if unknown.
            after: [N, C] nats after it.
            targets: [N, C] their targets.
            seed: seed of the samples of documents.
            has_documents: False if the N are not documents, so that no interval can be given.
        """
        num_targets = targets.sum(axis=0)
        samples = np.full((NUM_SAMPLES, targets.shape[1]), np.nan)
        if before is not None and has_documents:
            samples = sampled_changes(after - before, targets, seed)
        earlier = None if before is None else _per_target(before.sum(axis=0), num_targets)
        return cls(earlier, _per_target(after.sum(axis=0), num_targets), num_targets, samples)

    @classmethod
    def mean(cls, weighted: "Sequence[tuple[float, Changes]]") -> "Changes":
        """Return the mean of several texts by their weights; texts of weight 0 are left out."""
        used = [(weight, changes) for weight, changes in weighted if weight]
        total = sum(weight for weight, _ in used)
        shares = [(weight / total, changes) for weight, changes in used]
        known = [(share, changes.before) for share, changes in shares if changes.before is not None]
        before = None
        if len(known) == len(shares):
            before = np.sum([share * each for share, each in known], axis=0)
        return cls(
            before,
            np.sum([share * changes.after for share, changes in shares], axis=0),
            np.sum([changes.targets for _, changes in shares], axis=0),
            np.sum([share * changes.samples for share, changes in shares], axis=0),
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.targets)

    def record(self, number: int) -> dict[str, Any]:
        """Return a class as plain data: targets, before, after, change and the ends of its interval."""
        low, high = bounds(self.samples[:, number])
        return {**losses(self.before, self.after, self.targets, number), "low": low, "high": high}

    def bins(
        self, classes: Sequence[Class], documents: np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Return the classes that have targets.

        Args:
            classes: what each is.
            documents: [C] how many documents each has; None if they belong to several.
        """
        return [
            {
                "label": each.label,
                "from": each.low,
                "to": each.high,
                "documents": None if documents is None else int(documents[number]),
                **self.record(number),
            }
            for number, each in enumerate(classes)
            if self.targets[number]
        ]


def losses(
    before: np.ndarray | None, after: np.ndarray, targets: np.ndarray, number: int
) -> dict[str, Any]:
    """Return one entry of losses [C] before and after as plain data, with its change."""
    earlier = None if before is None else float(before[number])
    later = float(after[number])
    change = None if earlier is None else later - earlier
    return {"targets": int(targets[number]), "before": earlier, "after": later, "change": change}


def _per_target(nats: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.divide(nats, targets, out=np.full(nats.shape, np.nan), where=targets > 0)
