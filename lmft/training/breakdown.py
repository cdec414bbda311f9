"""Sums of a validation by document, token, frequency and position, from which its losses are broken down."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Trainer
from torch import Tensor

from lmft.objectives.base import IGNORED
from lmft.system.files import atomic_write

NUM_GROUPS = 1024
"""Groups of documents that the bootstrap draws; with fewer documents each is a group of its own."""
NUM_POSITIONS = 64
"""Ranges of positions; they grow wider until they hold every position."""
_BUFFERED = 16  # batches that stay on the device before their numbers are copied and added


@dataclass(frozen=True)
class BrokenDown:
    """What the losses of a validation text are broken down by."""

    num_documents: int
    num_tokens: int
    """Ids of the vocabulary."""
    class_of_token: np.ndarray
    """[V] the frequency class of each token."""
    num_classes: int


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

    @classmethod
    def of(cls, by: BrokenDown) -> "Sums":
        """Return sums of nothing."""
        shapes = {
            "document": (by.num_documents,),
            "token": (by.num_tokens,),
            "class": (NUM_GROUPS, by.num_classes),
            "position": (NUM_GROUPS, NUM_POSITIONS),
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
                pairs = self.arrays[name].reshape(NUM_GROUPS, NUM_POSITIONS // 2, 2)
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
        """Return the sums over all devices, and begin anew."""
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
            groups = documents % NUM_GROUPS
        sums.add("token", ids, nats)
        sums.add("class", groups * self.by.num_classes + self.by.class_of_token[ids], nats)
        while positions.max() >= NUM_POSITIONS * sums.positions_per_range:
            sums.widen(2 * sums.positions_per_range)
        sums.add("position", groups * NUM_POSITIONS + positions // sums.positions_per_range, nats)


def _concatenated(documents: Sequence[np.ndarray | None], is_target: np.ndarray) -> np.ndarray | None:
    known = [part for part in documents if part is not None]
    return np.concatenate(known)[is_target] if len(known) == len(documents) else None


@dataclass(frozen=True)
class Measurement:
    """The sums of a validation, and which one it was."""

    step: int
    loss: float
    """val/loss."""
    texts: dict[str, Sums]
    """By the validation text's name."""

    def save(self, path: Path) -> None:
        """Write the measurement as an .npz file."""
        arrays: dict[str, Any] = {"step": np.array(self.step), "loss": np.array(self.loss)}
        for number, (name, sums) in enumerate(self.texts.items()):
            arrays[f"{number}.name"] = np.array(name)
            arrays[f"{number}.width"] = np.array(sums.positions_per_range)
            arrays[f"{number}.has_documents"] = np.array(sums.has_documents)
            arrays |= {f"{number}.{key}": array for key, array in sums.arrays.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Measurement":
        """Read a measurement that `save` has written."""
        with np.load(path, allow_pickle=False) as file:
            content = dict(file)
        texts = {}
        for number in range(sum(key.endswith(".name") for key in content)):
            own = f"{number}."
            part = {key.removeprefix(own): content[key] for key in content if key.startswith(own)}
            name = str(part.pop("name"))
            width = int(part.pop("width"))
            has_documents = bool(part.pop("has_documents"))
            texts[name] = Sums(part, width, has_documents)
        return cls(int(content["step"]), float(content["loss"]), texts)
