"""The breakdown of a validation: nats of its targets, summed batch by batch."""

from collections.abc import Sequence

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

from lmft.breakdown.sums import NUM_POSITIONS, BrokenDown, Sums
from lmft.objectives.base import IGNORED

_BUFFERED = 16  # batches that stay on the device before their numbers are copied and added


class Breakdown:
    """Sums the nats of a validation's targets in several ways, batch by batch, in constant memory.

    Sums are in float64 on the CPU: they hardly depend on the order of batches, nor on devices.
    """

    def __init__(self, by: BrokenDown):
        self.by = by
        self._sums = Sums.of(by)
        # Of batches whose numbers are still on the device: nats, ids and positions [K], documents [K].
        self._waiting: list[tuple[Tensor, Tensor, Tensor, np.ndarray | None]] = []

    def add(
        self, nats: Tensor, targets: Tensor, positions: Tensor, documents: np.ndarray | None
    ) -> None:
        """Add a batch.

        Args:
            nats: [K] −log p of each target.
            targets: [K] token ids; −100 in the padding of K.
            positions: [K] position of each target.
            documents: [K] its document; None if that is not known.
        """
        self._waiting.append((nats, targets, positions, documents))
        if len(self._waiting) == _BUFFERED:
            self._add_waiting()

    def take(self, trainer: Trainer) -> Sums:
        """Return the sums over all devices, and reset them."""
        self._add_waiting()
        sums = self._sums
        self._sums = Sums.of(self.by)
        return sums.over_devices(trainer)

    def _add_waiting(self) -> None:
        if not self._waiting:
            return
        nats, targets, positions, documents = zip(*self._waiting, strict=True)
        self._waiting = []
        ids = torch.cat(targets).cpu().numpy()
        is_target = ids != IGNORED
        self._add(
            torch.cat(nats).float().cpu().numpy()[is_target].astype(np.float64),
            ids[is_target],
            torch.cat(positions).cpu().numpy()[is_target],
            _concatenated(documents, is_target),
        )

    def _add(
        self, nats: np.ndarray, ids: np.ndarray, positions: np.ndarray, documents: np.ndarray | None
    ) -> None:
        sums = self._sums
        if not len(nats):
            return
        if documents is None:
            sums.has_documents = False
            groups = np.zeros(len(nats), np.int64)
        else:
            sums.add("document", documents, nats)
            groups = documents % sums.num_groups
        sums.add("token", ids, nats)
        sums.add("class", groups * self.by.num_classes + self.by.class_of_token[ids], nats)
        while positions.max() >= NUM_POSITIONS * sums.positions_per_range:
            sums.widen(2 * sums.positions_per_range)
        sums.add("position", groups * NUM_POSITIONS + positions // sums.positions_per_range, nats)


def _concatenated(documents: Sequence[np.ndarray | None], is_target: np.ndarray) -> np.ndarray | None:
    known = [part for part in documents if part is not None]
    return np.concatenate(known)[is_target] if len(known) == len(documents) else None
