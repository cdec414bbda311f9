"""Loaders of both splits: examples in, what the model eats out."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from lmft.data.config import Split
from lmft.data.corpus import Corpus
from lmft.data.examples.base import Examples
from lmft.data.schedule.layout import Layout, limited
from lmft.data.schedule.noise import TokenNoise, key
from lmft.data.schedule.sampler import MicroBatch, Schedule
from lmft.errors import UserError
from lmft.objectives.base import IGNORED, Objective, Vocabulary
from lmft.system.signals import leave_to_parent

_LIMITS: dict[Split, str] = {"train": "limit_train_batches", "validation": "limit_val_batches"}  # of the trainer


class Batches(Dataset):
    """A split as a data set of micro-batches: examples in, what the model eats out."""

    def __init__(self, examples: Examples, objective: Objective, vocabulary: Vocabulary, seed: int, split: Split):
        self.examples, self.objective, self.vocabulary = examples, objective, vocabulary
        self.noise_seed = int(key(seed, split))

    def __getitem__(self, wanted: MicroBatch) -> dict[str, Any]:
        """Tensors for the body, `target_index` and `targets` [K], and counts: of tokens, of padding, of targets.

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
            "num_padding": _num_padding(arrays) if len(wanted.examples) else arrays["input_ids"].size,
            "num_targets": int((arrays["targets"] != IGNORED).sum()),
        }


def _num_padding(arrays: dict[str, np.ndarray]) -> int:
    """Padded positions of the inputs; of two sequences, the encoder's."""
    if "attention_mask" in arrays:
        return int(arrays["attention_mask"].size - arrays["attention_mask"].sum())
    return int((arrays["document_ids"] < 0).sum()) if "document_ids" in arrays else 0


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
        worker_timeout: float = 0,
    ):
        super().__init__()
        self.corpus, self.objective, self.vocabulary, self.seed = corpus, objective, vocabulary, seed
        self.batch_size, self.num_workers, self.worker_timeout = batch_size, num_workers, worker_timeout
        self._resume_at = (0, 0)
        self._schedules: dict[tuple[Split, int], Schedule] = {}  # by split and rank: each knows its latest stretch

    def setup(self, stage: str) -> None:
        """Has Lightning use a batch where a share of few batches, rounded down, would be none."""
        trainer = self.trainer
        assert trainer is not None
        for split, name in _LIMITS.items():
            limit = getattr(trainer, name)
            if split in self.corpus.examples and isinstance(limit, float) and 0 < limit < 1:
                num_batches = len(self._schedule(split, trainer.global_rank))
                if int(num_batches * limit) < limited(num_batches, limit):
                    setattr(trainer, name, 1)

    @property
    def layout(self) -> Layout:
        """What a position in an epoch means."""
        assert self.trainer is not None
        trainer = self.trainer
        sizes = self.batch_size, trainer.accumulate_grad_batches, trainer.world_size, trainer.limit_train_batches
        return Layout(len(self.corpus.examples["train"]), *sizes)

    def _schedule(self, split: Split, rank: int) -> Schedule:
        assert self.trainer is not None
        if (split, rank) not in self._schedules:
            examples, shuffled = self.corpus.examples[split], split == "train"
            accumulate = self.trainer.accumulate_grad_batches if shuffled else 1
            sizes = rank, self.trainer.world_size, examples.lengths, accumulate
            schedule = Schedule(len(examples), self.batch_size, self.seed, shuffled, *sizes)
            self._schedules[split, rank] = schedule
        return self._schedules[split, rank]

    def _batches(self, split: Split) -> Batches:
        objective = self.objective if split == "train" else self.objective.for_validation()
        return Batches(self.corpus.examples[split], objective, self.vocabulary, self.seed, split)

    def _loader(self, split: Split) -> DataLoader:
        trainer = self.trainer
        assert trainer is not None
        schedule = self._schedule(split, trainer.global_rank)
        if split == "train":
            schedule.start(*self._resume_at)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        num_workers = self.num_workers if self.num_workers is not None else (2 if on_gpu else 0)
        return DataLoader(
            self._batches(split),
            sampler=schedule,
            batch_size=None,  # the sampler already names whole batches
            num_workers=num_workers,
            timeout=self.worker_timeout if num_workers else 0,
            worker_init_fn=leave_to_parent if num_workers else None,
            pin_memory=on_gpu,
            persistent_workers=num_workers > 0,
            generator=torch.Generator(),  # its own, so that loading leaves the training's random numbers alone
        )

    def train_dataloader(self) -> DataLoader:
        """Micro-batches in the order of (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list:
        """Micro-batches in the order of the text, under the same noise at every pass; none without validation text."""
        return self._loader("validation") if "validation" in self.corpus.examples else []

    def num_examples(self, epoch: int, position: int) -> int:
        """Examples of this device's micro-batch at a position of an epoch."""
        assert self.trainer is not None
        return len(self._schedule("train", self.trainer.global_rank).micro_batch(epoch, position).examples)

    def parts(self, epoch: int, position: int, num_parts: int) -> list[dict[str, Any]]:
        """This device's micro-batch at a position of an epoch, as batches of some of its examples each."""
        assert self.trainer is not None
        examples = self._schedule("train", self.trainer.global_rank).micro_batch(epoch, position).examples
        parts = [part for part in np.array_split(examples, num_parts) if len(part)]
        return [self._batches("train")[MicroBatch(epoch, part)] for part in parts]

    def described(self, epoch: int, positions: Iterable[int], decode: Callable[..., Any]) -> list[dict[str, Any]]:
        """The examples of all devices' micro-batches at these positions of an epoch: their numbers and texts."""
        assert self.trainer is not None
        found = []
        for position in positions:
            for rank in range(self.trainer.world_size):
                numbers = self._schedule("train", rank).micro_batch(epoch, position).examples
                rows = self.corpus.examples["train"].rows(numbers) if len(numbers) else None
                for row, number in enumerate(numbers):
                    assert rows is not None
                    text = decode(rows.tokens[row, : rows.lengths[row]])
                    found.append({"epoch": epoch, "micro_batch": position, "example": int(number), "text": text})
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where training stands: the epoch and the micro-batch that come next, and what these are parts of."""
        assert self.trainer is not None
        progress = self.trainer.fit_loop.epoch_loop.batch_progress
        epoch, position = divmod(progress.total.ready, int(self.trainer.num_training_batches))
        return {"epoch": epoch, "position": position, "layout": asdict(self.layout), "text": self.corpus.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where `state_dict` says, on as many devices as there are now. Raises UserError."""
        if state_dict["text"] != self.corpus.fingerprint:
            fix = "give the run the text and the tokenizer it began with, or begin a new one: run.name=NEW"
            raise UserError("the training text, as tokenised, is not the one of the checkpoint", fix=fix)
        before = Layout(**state_dict["layout"])
        self.layout.check_follows(before)
        self._resume_at = (state_dict["epoch"], self.layout.position(state_dict["position"], before))

    def move(self, checkpoint: dict[str, Any]) -> None:
        """Makes the trainer's counts of micro-batches in a checkpoint those of the present layout."""
        before = Layout(**checkpoint[type(self).__qualname__]["layout"])
        self.layout.move(checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], before)
