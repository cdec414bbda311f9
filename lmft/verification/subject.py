"""Subject: the training that is verified, its examined examples, its model, and the model's rounding."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmft.assembly.parts import Parts
from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.reporting.terminal import muted
from lmft.verification import plain
from lmft.verification.examined import Examined
from lmft.verification.steps import step_gradient

_MARGIN = 32  # two ways to compute a number differ by a few roundings of the largest terms
_FLOAT32 = torch.finfo(torch.float32).eps
# Floating-point operations of a forward pass over the examples that a validation is measured on. A core
# of a CPU takes seconds for them.
_OPERATIONS = 1.5e11
_SHORTEST_ROW = 16  # tokens
_NUM_IN_STEP = 8  # examples
ORIGIN = "32 times what one unit in the last place of each weight changes, on these texts"


class Subject:
    """A training, with what several checks need of it."""

    def __init__(self, parts: Parts, device: torch.device):
        """Take a training.

        Args:
            parts: what its config describes.
            device: where it trains.
        """
        self.parts = parts
        self.device = device
        self._is_loaded = False

    # Its model

    def new_module(self) -> LanguageModel:
        """Return the module, as a training begins with it, but without dropout."""
        module = self._loaded().to(self.device).eval()
        module.warm_up = None  # it would keep the gradients of new rows alone
        return module

    def _loaded(self) -> LanguageModel:
        """Load or build the module; what is logged of that is shown the first time only."""
        if not self._is_loaded:
            self._is_loaded = True
            return self.parts.module()
        with muted():
            return self.parts.module(is_tried=True)

    @cached_property
    def module(self) -> LanguageModel:
        """The module that is computed with, whose weights no check changes."""
        return self.new_module()

    @property
    def is_causal(self) -> bool:
        """True if the model's own loss takes the label of the next position."""
        return self.parts.module_class.family.is_causal

    # Its examples

    def longest_row(self, count: int) -> int:
        """Return the most tokens that `count` rows may have each, if they are computed with."""
        return max(_SHORTEST_ROW, min(self.parts.data.block_size, self.affordable // count))

    @cached_property
    def affordable(self) -> int:
        """Tokens of a validation that is measured several times."""
        num_weights = sum(weight.numel() for weight in self.module.model.parameters())
        return int(_OPERATIONS / (2 * num_weights))

    def in_order(self, split: str, count: int) -> np.ndarray:
        """Return the numbers of the first examples of a split as the loader gives them, and of its last.

        Of blocks the last example is shorter than the others.
        """
        data = replace(self.parts.data, batch_size=count, num_workers=0)
        loaded = replace(self.parts, data=data).datamodule()
        schedule = loaded._schedule(split, 0)
        numbers: list[int] = []
        for position in range(len(schedule)):
            numbers += schedule.micro_batch(0, position).examples.tolist()
            if len(numbers) > count:
                break
        last = len(self.parts.corpus.examples[split]) - 1
        others = [number for number in dict.fromkeys(numbers) if number != last]
        return np.array([*others[: count - 1], last])

    def examined(self, split: str, count: int, longest: int | None) -> Examined:
        """Return up to `count` examples of a split, cut to at most `longest` tokens."""
        examples = self.parts.corpus.examples[split]
        pad_id = self.parts.vocabulary.pad_id
        return Examined(examples, self.in_order(split, count), longest, pad_id)

    @cached_property
    def step(self) -> Examined:
        """Eight examples of an optimizer step, of different lengths. Raises: UserError."""
        # Their gradient takes three times as long as a validation, and is computed several times.
        for longest in (self.longest_row(2 * _NUM_IN_STEP), None):
            examples = self.examined("train", _NUM_IN_STEP, longest)
            if self.datamodule(examples).batch(range(len(examples))).num_targets:
                return examples
        what = "the first examples have no token to predict, so nothing can be compared"
        raise UserError(what, fix="more text, or a higher rate of the objective")

    def parts_of(self, examples: dict[str, Any], batch_size: int, **trainer: Any) -> Parts:
        """Return the training on some examples alone.

        Args:
            examples: those of each split.
            batch_size: examples of a micro-batch.
            trainer: options of the trainer.
        """
        parts = self.parts
        documents = dict(parts.corpus.documents)
        if "train" not in documents:  # of a mixture; only its fingerprint is read
            documents["train"] = next(iter(documents.values()))
        ledger = {name: parts.corpus.ledger.get(name, {}) for name in examples}
        config = {**parts.config, "trainer": {**parts.config["trainer"], **trainer}}
        return replace(
            parts,
            config=config,
            data=replace(parts.data, batch_size=batch_size, num_workers=0),
            corpus=replace(parts.corpus, documents=documents, examples=examples, ledger=ledger),
        )

    def datamodule(self, examples: Examined, split: str = "train") -> DataModule:
        """Return the DataLoaders of some examples of a split."""
        return self.parts_of({split: examples}, batch_size=len(examples)).datamodule()

    def alone(self, examples: Examined, split: str = "train") -> list[list[plain.Alone]]:
        """Return each example by itself, as texts that plain transformers takes, on the device."""
        data = self.datamodule(examples, split)
        rows = [plain.alone(data.batch([i], split=split)) for i in range(len(examples))]
        return [[plain.on(self.device, text) for text in texts] for texts in rows]

    # Its rounding

    def nats_of(self, texts: list[plain.Alone]) -> Tensor:
        """Return −log p of each target of the texts, by the plain model. [K]"""
        return torch.cat([plain.each_nats(self.module.model, text) for text in texts])

    @cached_property
    def texts(self) -> list[list[plain.Alone]]:
        """The examples of `step`, each by itself."""
        return self.alone(self.step)

    @cached_property
    def nats(self) -> list[Tensor]:
        """−log p of each target of each example of `step`, by the plain model. [K] each"""
        return [self.nats_of(texts) for texts in self.texts]

    @cached_property
    def nats_tolerance(self) -> float:
        """The largest difference of one −log p that rounding explains."""
        found = torch.cat(self.nats)
        least = _FLOAT32 * float(found.abs().max())
        with plain.rounded_otherwise(self.module.model):
            other = torch.cat([self.nats_of(texts) for texts in self.texts])
        return _MARGIN * max(least, float((found - other).abs().max()))

    @cached_property
    def gradient(self) -> plain.Gradients:
        """The gradient of `step`, by the plain model's own loss, one text after the other."""
        return self._gradient()

    @cached_property
    def trained_step(self) -> tuple[float, plain.Gradients]:
        """Loss and gradient of `step` by lmft's training, in one micro-batch and in float32."""
        return self.train_step(len(self.step), "32-true", self.module)

    def train_step(
        self, batch_size: int, precision: str, module: LanguageModel
    ) -> tuple[float, plain.Gradients]:
        """Return loss and gradient of `step` by lmft's training; see `step_gradient`."""
        accumulate = -(-len(self.step) // batch_size)
        parts = self.parts_of({"train": self.step}, batch_size=batch_size)
        return step_gradient(parts, module, accumulate, precision)

    def _gradient(self) -> plain.Gradients:
        texts = [text for row in self.texts for text in row]
        return plain.gradient(self.module.model, texts, self.is_causal)

    @cached_property
    def gradient_tolerance(self) -> float:
        """The largest `gradient_distance` that rounding explains."""
        with plain.rounded_otherwise(self.module.model):
            other = self._gradient()
        return _MARGIN * max(_FLOAT32, gradient_distance(other, self.gradient))


def gradient_distance(found: plain.Gradients, expected: plain.Gradients) -> float:
    """Return the largest difference of a weight's gradient, as a share of that gradient's norm.

    Norms below a thousandth of the whole gradient's count as that much: the gradient of some weights,
    such as the biases of an attention's keys, is 0 but for rounding. Weights that only one of the two
    has count as 0 in the other.
    """
    whole = gradient_norm(expected)
    most = 0.0
    for name in found.keys() | expected.keys():
        wanted = expected.get(name)
        if wanted is None:
            wanted = torch.zeros_like(found[name])
        difference = found.get(name, torch.zeros_like(wanted)) - wanted
        size = max(float(wanted.norm()), whole / 1000)
        share = float(difference.norm()) / size
        most = max(most, share) if share == share else share  # a NaN stays
    return most


def gradient_norm(gradients: plain.Gradients) -> float:
    """Return the norm of a whole gradient."""
    return float(torch.stack([value.norm() for value in gradients.values()]).norm())
