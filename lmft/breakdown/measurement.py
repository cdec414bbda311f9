"""The sums of one validation as a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmft.breakdown.sums import Sums
from lmft.system.files import atomic_write


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
