"""DataLoaders for training and validation; each item is one ready micro-batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from lmft.data.ahead import LoaderAhead
from lmft.data.batch import Batch
from lmft.data.batches import Batches
from lmft.data.corpus import Corpus
from lmft.data.examples.mixture import MixedExamples
from lmft.data.padding import Padding, Widths
from lmft.data.schedule.branch import micro_batches_before, place_after
from lmft.data.schedule.budget import order_of
from lmft.data.schedule.course import Course
from lmft.data.schedule.layout import Layout, limited
from lmft.data.schedule.sampler import MicroBatch, Schedule
from lmft.errors import UserError
from lmft.objectives.base import Objective, Vocabulary
from lmft.objectives.scheduled import Scheduled
from lmft.system import loop_state
from lmft.system.signals import let_parent_handle_signals


@dataclass(frozen=True)
class _Devices:
    """The settings of the Trainer; the defaults are for DataLoaders without one."""

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    limit: int | float = 1.0
    on_gpu: torch.device | None = None  # the GPU, if there is one


class DataModule(LightningDataModule):
    """DataLoaders for training and validation; each item is one ready micro-batch.

    Order and noise are functions of the seed, and the position in training is two integers. The loaders
    work with and without a Trainer.

    >>> data = parts.datamodule()
    >>> batch = next(iter(data.train_dataloader()))
    >>> batch.num_tokens + batch.num_padding == batch.inputs["input_ids"].numel()
    True
    """

    def __init__(
        self,
        corpus: Corpus,
        objective: Objective,
        vocabulary: Vocabulary,
        seed: int,
        batch_size: int,
        num_workers: int | None,
        worker_timeout: float = 0,
        fixed_noise: bool = False,
        names_documents: bool = False,
    ):
        """Create the loaders' recipe.

        Args:
            corpus: documents and examples of the splits.
            objective: makes batches of examples.
            vocabulary: the facts about the tokenizer that the objective needs.
            seed: seed of order and noise.
            batch_size: examples of a micro-batch on one device.
            num_workers: loader processes; 0 or None: none, and a thread if a GPU trains.
            worker_timeout: seconds to wait for a loader process; 0: for ever.
            fixed_noise: True: an example of training has the same noise in every epoch.
            names_documents: True: the batches of validation tell the document of each target.
        """
        super().__init__()
        self.corpus = corpus
        self.objective = objective
        self.vocabulary = vocabulary
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.worker_timeout = worker_timeout
        self.fixed_noise = fixed_noise
        self.names_documents = names_documents
        self._padding = Padding()  # of training
        self._resume_at = (0, 0)  # (epoch, position)
        self._parent: Mapping[str, Any] | None = None
        # Epoch and position in the text where the training began; only a branch's are not 0.
        self._began_at = (0, 0)
        self._schedules: dict[tuple[str, int], Schedule] = {}  # by split and rank

    def setup(self, stage: str) -> None:
        """Reset the state of an earlier trainer: its devices, and its position after resuming.

        Lightning is made to use one batch if it would round a share of the batches down to none.

        Raises: UserError if the trainer would replace the samplers.
        """
        trainer = self.trainer
        assert trainer is not None
        self._schedules.clear()
        self._resume_at = (0, 0)
        self._began_at = (0, 0)
        if self._parent is not None and stage == "fit":
            self._began_at = place_after(
                self._parent,
                self.layout,
                text=self.corpus.fingerprint,
                seed=self.seed,
                are_grouped=self.corpus.examples["train"].lengths is not None,
            )
        if stage == "fit" and isinstance(self.objective, Scheduled) and not self._course.num_steps:
            what = "the objective changes with the share of the steps, but no number of steps is set"
            raise UserError(what, "lightning.Trainer", "Trainer(max_steps=…) or Trainer(max_epochs=…)")
        if loop_state.replaces_samplers(trainer):
            what = "lmft's DataModule gives each device its share of the batches itself"
            raise UserError(what, "lightning.Trainer", "Trainer(use_distributed_sampler=False)")
        for split in self._loaded:
            name = "limit_train_batches" if split == "train" else "limit_val_batches"
            limit = getattr(trainer, name)
            if isinstance(limit, float) and 0 < limit < 1:
                num_batches = len(self._schedule(split, trainer.global_rank))
                if int(num_batches * limit) < limited(num_batches, limit):
                    setattr(trainer, name, 1)

    @property
    def _devices(self) -> _Devices:
        trainer = self.trainer
        if trainer is None:
            return _Devices()
        device = trainer.strategy.root_device
        return _Devices(
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            accumulate=trainer.accumulate_grad_batches,
            limit=trainer.limit_train_batches,
            on_gpu=device if device.type == "cuda" else None,
        )

    @property
    def layout(self) -> Layout:
        """The split of an epoch into steps, micro-batches and devices."""
        devices = self._devices
        return Layout(
            num_examples=len(self.corpus.examples["train"]),
            batch_size=self.batch_size,
            accumulate=devices.accumulate,
            world_size=devices.world_size,
            limit=devices.limit,
        )

    def continue_after(self, state_dict: Mapping[str, Any]) -> None:
        """Begin where a training with this state ended, instead of at the beginning of the text."""
        self._parent = state_dict

    @property
    def _course(self) -> Course:
        layout = self.layout
        num_steps = 0
        if self.trainer is not None:
            steps_per_epoch = -(-layout.num_used // layout.accumulate)
            num_steps = loop_state.num_steps_asked_for(self.trainer, steps_per_epoch)
        start = micro_batches_before(self._began_at, layout)
        return Course(layout.num_used, layout.accumulate, num_steps, start)

    @property
    def _loaded(self) -> list[str]:
        """The splits that have a DataLoader."""
        return [split for split in ("train", *self.corpus.validations) if split in self.corpus.examples]

    def _schedule(self, split: str, rank: int) -> Schedule:
        if (split, rank) not in self._schedules:
            examples = self.corpus.examples[split]
            is_training = split == "train"
            schedule = Schedule(
                num_examples=len(examples),
                batch_size=self.batch_size,
                seed=self.seed,
                shuffled=is_training,
                rank=rank,
                world_size=self._devices.world_size,
                lengths=examples.lengths,
                accumulate=self._devices.accumulate if is_training else 1,
                order=order_of(examples, self.seed),
                course=self._course if is_training else None,
            )
            self._schedules[split, rank] = schedule
        return self._schedules[split, rank]

    def batches(self, split: str) -> Batches:
        """Return the batches of a split, indexed by micro-batch."""
        objective = self.objective
        noise_of = split
        is_validation = split in self.corpus.validations
        if split in self.corpus.trained_validations:  # as they are at the end of the training
            objective = objective.at(1.0)
            noise_of = "train"
        elif is_validation:
            objective = objective.for_validation()
        return Batches(
            self.corpus.examples[split],
            objective,
            self.vocabulary,
            self.seed,
            noise_of,
            names_documents=self.names_documents and is_validation,
            fixed_noise=self.fixed_noise,
            padding=None if is_validation else self._padding,
        )

    def pad_training_to(self, widths: Widths | None) -> None:
        """Pad the batches of training to these widths from now on; None: to their longest row."""
        self._padding.widths = widths

    def usual_batch(self) -> Batch:
        """Return the first batch of training with as many rows as a batch has at most."""
        schedule = self._schedule("train", self._devices.rank)
        first = schedule.micro_batch(0, 0)
        numbers = np.resize(first.examples, self.batch_size)
        return self.batch(numbers, share=first.share)

    def _loader(self, split: str) -> DataLoader:
        devices = self._devices
        schedule = self._schedule(split, devices.rank)
        if split == "train":
            schedule.start(*self._resume_at)
        batches = self.batches(split)
        options = {
            "sampler": schedule,
            "batch_size": None,  # the sampler already names whole batches
            "generator": torch.Generator(),  # loading does not change the training's random numbers
        }
        if not self.num_workers:
            # On a CPU a thread would take its time from the training's.
            if devices.on_gpu is None:
                return DataLoader(batches, **options)
            return LoaderAhead(batches, device=devices.on_gpu, **options)
        return DataLoader(
            batches,
            **options,
            num_workers=self.num_workers,
            timeout=self.worker_timeout,
            worker_init_fn=let_parent_handle_signals,
            pin_memory=devices.on_gpu is not None,
            persistent_workers=True,
        )

    def train_dataloader(self) -> DataLoader:
        """Return the micro-batches in the order of (seed, epoch)."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return the micro-batches in the order of the text, with the same noise at every pass.

        A list with a DataLoader for each source of a mixture; an empty one without validation text.
        """
        loaders = [self._loader(split) for split in self.corpus.validations]
        if len(loaders) == 1:
            return loaders[0]
        return loaders

    def batch(
        self,
        examples: Sequence[int] | np.ndarray,
        epoch: int = 0,
        split: str = "train",
        share: float = 0.0,
    ) -> Batch:
        """Return these examples of a split as one batch, with the noise that they have in that epoch.

        share: share of the training that is done, on which the objective's options may depend.
        """
        return self.batches(split)[MicroBatch(epoch, np.asarray(examples), share)]

    def check_targets(self) -> None:
        """Raise UserError if a split has no target: a loss could not be computed."""
        for split, examples in self.corpus.examples.items():
            if isinstance(examples, MixedExamples):
                continue  # its sources have splits of their own
            for start in range(0, len(examples), self.batch_size):
                numbers = range(start, min(start + self.batch_size, len(examples)))
                if self.batch(numbers, split=split).num_targets:
                    break
            else:
                raise self._no_target(split)

    def _no_target(self, split: str) -> UserError:
        texts = self.corpus.documents[split]
        name = split.replace("train", "training", 1)
        what = f"the {name} text has no token to predict"
        if texts.unknown_tokens:
            what += (
                f": {texts.unknown_tokens:,} of its {texts.num_tokens:,} tokens are unknown to the "
                f"vocabulary, such as {' '.join(texts.store.meta['unknown_text'])}"
            )
        fix = "a tokenizer that knows this text, or other text"
        return UserError(what, texts.store.meta["source"], fix)

    def num_examples(self, epoch: int, position: int) -> int:
        """Return the number of examples of this device's micro-batch at a position of an epoch."""
        return len(self._schedule("train", self._devices.rank).micro_batch(epoch, position).examples)

    def split_micro_batch(self, epoch: int, position: int, num_parts: int) -> list[Batch]:
        """Return this device's micro-batch at a position of an epoch, split into batches."""
        whole = self._schedule("train", self._devices.rank).micro_batch(epoch, position)
        parts = [part for part in np.array_split(whole.examples, num_parts) if len(part)]
        return [self.batch(part, whole.epoch, share=whole.share) for part in parts]

    def describe_examples(
        self, epoch: int, positions: Iterable[int], decode: Callable[..., Any]
    ) -> list[dict[str, Any]]:
        """Return number and text of all devices' examples at these positions of an epoch."""
        described = []
        for position in positions:
            for rank in range(self._devices.world_size):
                numbers = self._schedule("train", rank).micro_batch(epoch, position).examples
                if not len(numbers):
                    continue
                rows = self.corpus.examples["train"].rows(numbers)
                for row, number in enumerate(numbers):
                    text = decode(rows.tokens[row, : rows.lengths[row]])
                    described.append(
                        {"epoch": epoch, "micro_batch": position, "example": int(number), "text": text}
                    )
        return described

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and position of the next micro-batch, and what they refer to.

        That is the layout, the text with its order, and where in it the training began.
        """
        assert self.trainer is not None
        epoch, position = loop_state.next_micro_batch(self.trainer)
        return {
            "epoch": epoch,
            "position": position,
            "layout": asdict(self.layout),
            "text": self.corpus.fingerprint,
            "seed": self.seed,
            "began_at": list(self._began_at),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the position of `state_dict`, converted to the present layout. Raises:
        UserError.
        """
        if state_dict["text"] != self.corpus.fingerprint:
            fix = (
                "give the run the text and the tokenizer it began with, or begin a new one: run.name=NEW"
            )
            raise UserError("the training text, as tokenised, is not the one of the checkpoint", fix=fix)
        before = Layout(**state_dict["layout"])
        self.layout.check_same_steps(before)
        epoch, position = state_dict.get("began_at", (0, 0))
        if position:
            self.layout.check_whole_steps(before)
        self._began_at = (epoch, self.layout.position(position, before))
        self._resume_at = (state_dict["epoch"], self.layout.position(state_dict["position"], before))
        self._schedules.clear()

    def convert_counters(self, checkpoint: dict[str, Any]) -> None:
        """Convert the trainer's counts of micro-batches in a checkpoint to the present layout."""
        if type(self).__qualname__ not in checkpoint:
            return  # the checkpoint was made with other DataLoaders
        before = Layout(**checkpoint[type(self).__qualname__]["layout"])
        self.layout.convert_counters(
            checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"], before
        )
