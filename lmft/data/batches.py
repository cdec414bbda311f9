"""A split as a data set whose items are ready micro-batches."""

import numpy as np
import torch
from torch.utils.data import Dataset

from lmft.data.batch import Batch
from lmft.data.examples.base import Examples, Located
from lmft.data.padding import Padding
from lmft.data.schedule.noise import TokenNoise, key
from lmft.data.schedule.sampler import MicroBatch
from lmft.data.tracing import target_documents
from lmft.objectives.base import IGNORED, Objective, Rows, Vocabulary
from lmft.objectives.document_starts import document_starts


class Batches(Dataset):
    """A split as a data set that is indexed by micro-batches."""

    def __init__(
        self,
        examples: Examples,
        objective: Objective,
        vocabulary: Vocabulary,
        seed: int,
        split: str,
        names_documents: bool = False,
        fixed_noise: bool = False,
        padding: Padding | None = None,
    ):
        """Create the batches of a split.

        Args:
            examples: what batches are made of.
            objective: makes batches of examples.
            vocabulary: the facts about the tokenizer that the objective needs.
            seed: seed of the examples' noise.
            split: name of the split; each has noise of its own.
            names_documents: True: a batch tells the document of each target.
            fixed_noise: True: every epoch has the noise of the first.
            padding: what rows are padded to; None: to the longest of their batch.
        """
        self.padding = padding or Padding()
        self.examples = examples
        self.names_documents = names_documents
        self.objective = objective
        self.vocabulary = vocabulary
        self.noise_seed = int(key(seed, split))
        self.fixed_noise = fixed_noise

    def __getitem__(self, micro_batch: MicroBatch) -> Batch:
        """Return the batch of a micro-batch; if that has no examples, a batch of one without targets."""
        is_empty = not len(micro_batch.examples)
        rows, objective, noise = self.ingredients(micro_batch)
        arrays = self.padding.applied(objective(rows, self.vocabulary, noise))
        num_tokens = int(rows.lengths.sum())
        num_padding = _num_padding(arrays)
        if is_empty:
            arrays["targets"][:] = IGNORED
            num_tokens = 0
            num_padding = arrays["input_ids"].size
        num_targets = int((arrays["targets"] != IGNORED).sum())
        documents = None
        if self.names_documents and isinstance(self.examples, Located):
            numbers = micro_batch.examples
            documents = target_documents(
                self.examples, numbers, rows, objective, self.vocabulary, noise, arrays
            )
        starts = None
        if "document_ids" in arrays:
            starts = torch.from_numpy(document_starts(arrays["document_ids"]))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return Batch(
            target_index=tensors.pop("target_index"),
            targets=tensors.pop("targets"),
            inputs=tensors,
            num_tokens=num_tokens,
            num_padding=num_padding,
            num_targets=num_targets,
            document_starts=starts,
            target_documents=documents,
        )

    def ingredients(self, micro_batch: MicroBatch) -> tuple[Rows, Objective, TokenNoise]:
        """Return the examples, the objective and the noise of a micro-batch.

        A micro-batch without examples gets the first one.
        """
        is_empty = not len(micro_batch.examples)
        rows = self.examples.rows(np.zeros(1, np.int64) if is_empty else micro_batch.examples)
        epoch = 0 if self.fixed_noise else micro_batch.epoch
        noise = TokenNoise(self.noise_seed, epoch, rows.numbers)
        return rows, self.objective.at(micro_batch.share), noise


def _num_padding(arrays: dict[str, np.ndarray]) -> int:
    """Return the number of padded positions of the inputs; in sequence to sequence, of the encoder's."""
    if "attention_mask" in arrays:
        return int(arrays["attention_mask"].size - arrays["attention_mask"].sum())
    if "document_ids" in arrays:
        return int((arrays["document_ids"] < 0).sum())
    return 0
