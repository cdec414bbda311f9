"""The micro-batches of a training as plain data, without its model's weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmft.data.datamodule import DataModule
from lmft.data.schedule.sampler import MicroBatch
from lmft.inspection.example import Made, example
from lmft.inspection.names import TokenNames
from lmft.inspection.origins import origins
from lmft.inspection.queries import queries


@dataclass(frozen=True)
class Viewer:
    """Shows the micro-batches of a DataModule.

    >>> viewer = Viewer(parts.datamodule(), parts.tokenizer, parts.module_class.family.is_causal)
    >>> batch = viewer.batch("train", MicroBatch(0, np.array([0, 1])))
    >>> len(batch["examples"]), batch["num_targets"] > 0
    (2, True)
    """

    data: DataModule
    tokenizer: PreTrainedTokenizerBase
    is_causal: bool
    """Whether a token sees only those before it."""

    @cached_property
    def names(self) -> TokenNames:
        """The texts of the tokens."""
        return TokenNames(self.tokenizer, self.data.vocabulary.ordinary_ids.tolist())

    def batch(self, split: str, micro_batch: MicroBatch) -> dict[str, Any]:
        """Return a micro-batch as plain data: its counts, its tensors' shapes, and its `examples`."""
        batch = self.data.batches(split)[micro_batch]
        made = self._made(split, micro_batch, {**batch.inputs, **_targets(batch)})
        shapes = {name: list(array.shape) for name, array in made.arrays.items()}
        return {
            "split": split,
            "epoch": micro_batch.epoch,
            "shapes": shapes,
            "num_tokens": batch.num_tokens,
            "num_padding": batch.num_padding,
            "num_targets": batch.num_targets,
            "examples": [
                {"split": split, "epoch": micro_batch.epoch, **example(made, row, self.names)}
                for row in range(len(micro_batch.examples))
            ],
        }

    def _made(self, split: str, micro_batch: MicroBatch, tensors: Mapping[str, Any]) -> Made:
        rows, objective, noise = self.data.batches(split).ingredients(micro_batch)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        where = queries(arrays)
        return Made(
            rows=rows,
            documents=self._documents(split, micro_batch.examples),
            arrays=arrays,
            queries=where,
            origins=origins(objective, rows, self.data.vocabulary, noise, arrays, where),
            pad_id=self.data.vocabulary.pad_id,
            is_causal=self.is_causal,
        )

    def _documents(self, split: str, examples: np.ndarray) -> np.ndarray:
        """Return the number of each token's document in the store. [B, T]"""
        rows = self.data.corpus.examples[split].numbered().rows(examples)
        assert rows.documents is not None
        return rows.documents


def _targets(batch: Any) -> dict[str, Any]:
    return {"target_index": batch.target_index, "targets": batch.targets}


def first_example(
    data: DataModule, tokenizer: PreTrainedTokenizerBase, is_causal: bool
) -> dict[str, Any]:
    """Return the first example of the training text as plain data, with the noise of the first epoch."""
    viewer = Viewer(data, tokenizer, is_causal)
    return viewer.batch("train", MicroBatch(0, np.zeros(1, np.int64)))["examples"][0]
