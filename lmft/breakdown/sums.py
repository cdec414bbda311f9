"""Sums of a validation's nats by document, token, frequency class and position."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

MOST_GROUPS = 1024
"""Groups of documents that the bootstrap draws; with fewer documents each is a group of its own."""
NUM_POSITIONS = 32
"""Ranges of positions; they grow wider until they hold every position."""


@dataclass(frozen=True)
class BrokenDown:
    """Holds what the losses of a validation text are broken down by."""

    num_documents: int
    num_tokens: int
    """Ids of the vocabulary."""
    class_of_token: np.ndarray
    """[V] the frequency class of each token."""
    num_classes: int

    @property
    def num_groups(self) -> int:
        """Groups of documents."""
        return min(MOST_GROUPS, max(1, self.num_documents))


@dataclass
class Sums:
    """Nats and targets of a text's validation, summed in several ways."""

    arrays: dict[str, np.ndarray]
    """document_nats, document_targets [documents]; token_nats, token_targets [V]; class_nats,
    class_targets [groups, classes]; position_nats, position_targets [groups, ranges].
    """
    positions_per_range: int = 1
    has_documents: bool = True
    """False if the document of some targets could not be told: then all are of the first group."""

    @property
    def num_groups(self) -> int:
        """Groups of documents; a document's group is its index modulo their number."""
        return len(self.arrays["class_nats"])

    @classmethod
    def of(cls, by: BrokenDown) -> "Sums":
        """Return sums of nothing."""
        shapes = {
            "document": (by.num_documents,),
            "token": (by.num_tokens,),
            "class": (by.num_groups, by.num_classes),
            "position": (by.num_groups, NUM_POSITIONS),
        }
        arrays = {f"{name}_nats": np.zeros(shape) for name, shape in shapes.items()}
        arrays |= {f"{name}_targets": np.zeros(shape, np.int64) for name, shape in shapes.items()}
        return cls(arrays)

    def add(self, way: str, index: np.ndarray, nats: np.ndarray) -> None:
        """Add the nats [K] of targets to the entries at `index` [K] of one way."""
        np.add.at(self.arrays[f"{way}_nats"].reshape(-1), index, nats)
        np.add.at(self.arrays[f"{way}_targets"].reshape(-1), index, 1)

    def widen(self, positions_per_range: int) -> None:
        """Join neighbouring ranges of positions until they have this width, a power of two."""
        while self.positions_per_range < positions_per_range:
            for name in ("position_nats", "position_targets"):
                pairs = self.arrays[name].reshape(-1, NUM_POSITIONS // 2, 2)
                self.arrays[name] = np.pad(pairs.sum(axis=2), ((0, 0), (0, NUM_POSITIONS // 2)))
            self.positions_per_range *= 2

    def over_devices(self, trainer: Trainer) -> "Sums":
        """Return the sums over all devices. Every device calls it."""
        if trainer.world_size == 1:
            return self
        own = torch.tensor([self.positions_per_range, int(not self.has_documents)])
        width, is_unknown = _reduced(trainer, own, "max").tolist()
        self.widen(width)
        arrays = {
            name: _reduced(trainer, torch.from_numpy(array), "sum").numpy()
            for name, array in self.arrays.items()
        }
        return Sums(arrays, width, not is_unknown)


def _reduced(trainer: Trainer, values: Tensor, operation: Any) -> Tensor:
    on_device = values.to(trainer.strategy.root_device, copy=True)
    return trainer.strategy.reduce(on_device, reduce_op=operation).cpu()
