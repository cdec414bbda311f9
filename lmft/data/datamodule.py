"""Loaders of both splits: examples in, what the model eats out."""

import re
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedTokenizerFast

from lmft.data.corpus import Corpus, Split
from lmft.data.examples import Examples
from lmft.data.noise import TokenNoise, key
from lmft.data.schedule import MicroBatch, Schedule
from lmft.data.tokenize import id_of
from lmft.objectives.base import IGNORED, Objective, Vocabulary

_SENTENCE_END = re.compile(r"""[.!?。！？]["'”’»)\]]*$""")  # a full stop or the like, and what closes behind it


class Batches(Dataset):
    """A split as a data set of micro-batches: examples in, what the model eats out."""

    def __init__(self, examples: Examples, objective: Objective, vocabulary: Vocabulary, seed: int, split: Split):
        self.examples, self.objective, self.vocabulary = examples, objective, vocabulary
        self.noise_seed = int(key(seed, split))

    def __getitem__(self, wanted: MicroBatch) -> dict[str, Any]:
        """Tensors for the body, `target_index` and `targets` [K], and the counts `num_tokens`, `num_targets`.

        Where a rank has no share of an epoch's tail, it is one example without targets.
        """
        numbers = wanted.examples if len(wanted.examples) else np.zeros(1, np.int64)
        rows = self.examples.rows(numbers)
        noise = TokenNoise(self.noise_seed, wanted.epoch, rows.numbers)
        arrays = self.objective(rows, self.vocabulary, noise)
        if not len(wanted.examples):
            arrays["targets"][:] = IGNORED
        return {
            **{name: torch.from_numpy(array) for name, array in arrays.items()},
            "num_tokens": int(rows.lengths.sum()) if len(wanted.examples) else 0,
            "num_targets": int((arrays["targets"] != IGNORED).sum()),
        }


class DataModule(LightningDataModule):
    """Loaders of both splits, whose order and noise follow from the seed, and whose position is two integers."""

    def __init__(
        self,
        corpus: Corpus,
        objective: Objective,
        vocabulary: Vocabulary,
        seed: int,
        batch_size: int,
        num_workers: int | None,
    ):
        super().__init__()
        self.corpus, self.objective, self.vocabulary, self.seed = corpus, objective, vocabulary, seed
        self.batch_size, self.num_workers = batch_size, num_workers
        self._resume_at = (0, 0)

    def _loader(self, split: Split, shuffled: bool) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        examples = self.corpus.examples[split]
        objective = self.objective if split == "train" else self.objective.for_validation()
        ranks = trainer.global_rank, trainer.world_size
        accumulate = trainer.accumulate_grad_batches if shuffled else 1
        schedule = Schedule(len(examples), self.batch_size, self.seed, shuffled, *ranks, examples.lengths, accumulate)
        if shuffled:
            schedule.start(*self._resume_at)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        num_workers = self.num_workers if self.num_workers is not None else (2 if on_gpu else 0)
        return DataLoader(
            Batches(examples, objective, self.vocabulary, self.seed, split),
            sampler=schedule,
            batch_size=None,  # the sampler already names whole batches
            num_workers=num_workers,
            pin_memory=on_gpu,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # its own, so that loading leaves the training's random numbers alone
        )

    def train_dataloader(self) -> DataLoader:
        """Micro-batches in the order of (seed, epoch)."""
        return self._loader("train", shuffled=True)

    def val_dataloader(self) -> DataLoader | list:
        """Micro-batches in the order of the text, under the same noise at every pass; none without validation text."""
        return self._loader("validation", shuffled=False) if "validation" in self.corpus.examples else []

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch and the micro-batch that come next."""
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        epoch, position = divmod(progress.total.ready, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "position": position}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Goes on where `state_dict` says."""
        self._resume_at = (state_dict["epoch"], state_dict["position"])


def vocabulary_of(tokenizer: PreTrainedTokenizerFast, decoder_start_id: int | None = None) -> Vocabulary:
    """What objectives need to know of a tokenizer, and what the decoder of a seq2seq model is given first."""
    special = set(tokenizer.all_special_ids)
    ordinary = [i for i in range(len(tokenizer)) if i not in special]
    pieces = tokenizer.convert_ids_to_tokens(ordinary)
    ends = [i for i, piece in zip(ordinary, pieces, strict=True) if _SENTENCE_END.search(piece)]
    return Vocabulary(
        size=len(tokenizer),
        mask_id=id_of(tokenizer, "mask"),
        ordinary_ids=np.array(ordinary, np.int64),
        pad_id=id_of(tokenizer, "pad") or 0,
        bos_id=id_of(tokenizer, "bos"),
        eos_id=id_of(tokenizer, "eos"),
        ids={str(token): number for number, token in tokenizer.added_tokens_decoder.items()},
        decoder_start_id=decoder_start_id,
        sentence_end_ids=np.array(ends, np.int64),
    )
