"""An optimizer step: its micro-batches' sums and gradients, and what becomes of it where memory is too small."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from lmft.errors import UserError

log = logging.getLogger("lmft")
T = TypeVar("T")
_SMALLER = "a smaller data.block_size, model.gradient_checkpointing=true, or a smaller model"


class OptimizerStep:
    """The micro-batches of an optimizer step on this device.

    Where memory is too small for one, the step is repeated from its beginning with every micro-batch in twice as many
    parts, and so are all steps from then on. A part's examples and noise are those of the whole (a batch is a function
    of seed, epoch and position), and sums do not mind how they are parted: so the step stays what it was.
    """

    def __init__(self, module: Any):
        """module: the LanguageModel whose steps they are."""
        self.module = module
        self.num_parts = 1  # in which each micro-batch is computed
        self.nats: Any = 0.0  # sum over the micro-batches so far; a tensor on the device
        self.num_targets = 0
        self._whole: tuple[Tensor, Tensor] | None = None  # a micro-batch's loss, and what Lightning is given of it

    def begin(self) -> None:
        """Forgets the sums of the step before."""
        self.nats, self.num_targets = 0.0, 0

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """A micro-batch's loss for `backward`; where it is computed in parts, their backward pass is over already."""
        if self.module.trainer.world_size > 1:  # the strategy wants to see the loss itself
            return self._loss(self._nats(batch), batch["num_targets"])
        if self.num_parts == 1:
            loss = unless_out_of_memory(lambda: self._loss(self._nats(batch), batch["num_targets"]))
            if loss is not None:
                # Nobody else holds on to its graph, so that it can be let go where memory ends in the backward pass.
                self._whole = loss, loss.detach().requires_grad_()
                return self._whole[1]
            self._repeat_in_more_parts()
        elif unless_out_of_memory(lambda: self._run_in_parts(self._position)) is None:
            self._repeat_in_more_parts()
        return torch.zeros((), device=self.module.device, requires_grad=True)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of the micro-batch whose `loss` it is."""
        loss.backward()
        if self._whole is None:
            return
        fits = unless_out_of_memory(self._backward_whole)
        self._whole = None  # and with it the graph of a loss that did not fit
        if not fits:
            self._repeat_in_more_parts()

    def _backward_whole(self) -> bool:
        assert self._whole is not None
        whole, given = self._whole
        whole.backward(given.grad)  # by which Lightning and the scaler of its precision have multiplied the loss
        return True

    def _nats(self, batch: dict[str, Any]) -> Tensor:
        total = self.module.nats(batch)
        self.nats = self.nats + total.detach()
        self.num_targets += batch["num_targets"]
        return total

    def _loss(self, total: Tensor, num_targets: int) -> Tensor:
        return total * (self.module.trainer.accumulate_grad_batches / self.module.divisor(num_targets))

    @property
    def _position(self) -> int:
        """Of the current micro-batch in its epoch."""
        return self.module.trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1

    def _repeat_in_more_parts(self) -> None:
        """The whole step so far again, in ever smaller parts until they fit."""
        module, trainer = self.module, self.module.trainer
        current = self._position
        first = current - current % trainer.accumulate_grad_batches
        while True:
            num_examples = trainer.datamodule.num_examples(trainer.current_epoch, current)
            if self.num_parts >= num_examples:
                where = f"step {trainer.global_step + 1}, one example at a time"
                raise UserError("out of memory", where, _SMALLER)
            self.num_parts *= 2
            module.optimizers(use_pl_optimizer=False).zero_grad()
            if module.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning(
                "out of memory in step %d: repeated with each micro-batch in %d parts, as all that follow",
                trainer.global_step + 1,
                self.num_parts,
            )
            self.begin()
            if all(unless_out_of_memory(partial(self._run_in_parts, place)) for place in range(first, current + 1)):
                return

    def _run_in_parts(self, position: int) -> bool:
        """Forward and backward pass of a micro-batch of this epoch, part by part."""
        module, trainer = self.module, self.module.trainer
        progress = trainer.fit_loop.epoch_loop.batch_progress
        module.seed_dropout(progress.total.ready - (progress.current.ready - 1 - position))
        parts = trainer.datamodule.parts(trainer.current_epoch, position, self.num_parts)
        num_targets = sum(part["num_targets"] for part in parts)
        for part in parts:
            with trainer.precision_plugin.train_step_context():
                total = self._nats(trainer.strategy.batch_to_device(part))
            loss = total / module.divisor(num_targets)
            with torch.autocast(module.device.type, enabled=False):
                trainer.precision_plugin.pre_backward(loss, module).backward()
        return True


def unless_out_of_memory(compute: Callable[[], T]) -> T | None:
    """What `compute` returns; None where memory was too small for it."""
    try:
        return compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator of torch had nothing more to give."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
