"""One optimizer step: loss and gradients over its micro-batches, which are split if memory runs out."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer

from lmft.data.batch import Batch
from lmft.data.datamodule import DataModule
from lmft.errors import UserError
from lmft.system import loop_state, sharding, signals
from lmft.system.processes import sum_over_processes
from lmft.training.cpu import fast_cpu_dropout
from lmft.training.cuda_graphs import MicroBatchGraphs, graphs_of
from lmft.training.memory import none_if_out_of_memory
from lmft.training.nonfinite import Place
from lmft.training.outcome import Outcomes, Sent
from lmft.training.seeding import seed_generators
from lmft.training.update import Update, clip, multiply, weights_with_gradient

log = logging.getLogger(__name__)
# How many steps a device may be behind; where it is not listed, reading costs nothing.
STEPS_BEHIND = {"cuda": 2}
# Provisional divisor of the loss while the number of targets is unknown; a power of two, so that no
# precision is lost.
_CONSTANT = 1024.0
_SMALLER = "a smaller data.block_size, model.gradient_checkpointing=true, or a smaller model"


class OptimizerStep:
    """The micro-batches of an optimizer step on this device.

    The step's gradient is the sum over the targets of all its micro-batches on all devices, divided once
    by their number. A mean of the micro-batches' means would weigh a target by the size of its
    micro-batch.

    If memory is too small for a micro-batch, the step is repeated from its first micro-batch, with each
    one split into twice as many parts; later steps are split too. Together the parts have the
    same examples and noise as the unsplit micro-batch, and their sums add up to the same total.
    """

    def __init__(
        self,
        module: LightningModule,
        compute_nats: Callable[[Batch], Tensor],
        seed: int,
        nonfinite: Literal["stop", "skip"] = "stop",
        record: Callable[[float, int], object] = lambda nats, num_targets: None,
        may_record: bool = True,
        computed: Callable[[Batch], object] = lambda batch: None,
    ):
        """Create the step of a module's training.

        Args:
            module: the LightningModule that is trained.
            compute_nats: returns the sum of −log p over a batch's targets.
            seed: seed of dropout.
            nonfinite: what happens if loss or gradient are not finite: `stop` raises NonFiniteStepError,
                `skip` leaves the weights as they are.
            record: gets the nats and targets of each step on all devices, unless they are not finite.
            may_record: whether micro-batches are recorded as CUDA graphs, where that is possible.
            computed: called for each micro-batch, or part of one, after its forward pass.
        """
        self.module = module
        self.may_record = may_record
        self.computed = computed
        self.compute_nats = compute_nats
        self.seed = seed
        self.num_parts = 1  # of each micro-batch
        self.update = Update(nonfinite)
        self.outcomes = Outcomes(nonfinite, record)
        self.nats: Any = 0.0  # sum over the micro-batches so far; a tensor on the device
        self.num_targets = 0
        # Whether a step, counted from 1, does not change the weights.
        self.is_left_out: Callable[[int], bool] = lambda step: False
        self.graphs: MicroBatchGraphs | None = None
        # An unsplit micro-batch, its loss, and the leaf that Lightning gets in its place.
        self._whole: tuple[Batch, Tensor, Tensor] | None = None

    @property
    def steps_behind(self) -> int:
        """Return how many steps the device may be behind when the host reads an outcome."""
        if self._scaler is not None:  # it reads whether a step overflows, and the schedule depends on it
            return 0
        return STEPS_BEHIND.get(self.module.device.type, 0)

    def begin(self) -> None:
        """Begin a training."""
        self.outcomes.begin()
        self.update.begin()
        # Weights may lie elsewhere than in a training before.
        has_scaler = self._scaler is not None
        self.graphs = graphs_of(self.module, self._compute, has_scaler) if self.may_record else None

    def finish(self) -> None:
        """End a training: wait for its steps, and free the memory of graphs.

        Raises: UserError if all steps overflowed float16, NonFiniteStepError.
        """
        self.outcomes.read()
        self.outcomes.overflows.check_end(self.module.trainer.global_step)
        if self.graphs is not None:
            self.graphs.report()
            self.graphs = None

    def begin_micro_batch(self, batch_idx: int) -> None:
        """Seed dropout for a micro-batch; reset the sums if it is the first one of a step."""
        self._seed_dropout(loop_state.micro_batch_number(self.module.trainer))
        if batch_idx % self.module.trainer.accumulate_grad_batches == 0:
            self._forget_sums()

    def forward(self, batch: Batch) -> Tensor:
        """Return the micro-batch's loss for `backward`.

        It is 0 if the micro-batch was split: its backward pass has then run already.
        """
        with self.dropout():
            if self.module.trainer.world_size > 1:  # DDP needs the real loss, with its graph
                return self._loss(batch)
            if self.num_parts == 1:
                replayed = self._replayed(batch)
                if replayed is not None:
                    return replayed
                loss = self._loss_if_it_fits(batch)
                if loss is not None:
                    # Lightning gets a leaf, so that `_whole` holds the only reference to the graph and
                    # its memory can be freed if the backward pass fails.
                    leaf = loss.detach().requires_grad_()
                    self._whole = (batch, loss, leaf)
                    return leaf
                self._repeat_in_more_parts()
            elif none_if_out_of_memory(lambda: self._run_in_parts(self._position)) is None:
                self._repeat_in_more_parts()
            return torch.zeros((), device=self.module.device, requires_grad=True)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch, given the loss that `forward` returned."""
        with self.dropout():  # gradient checkpointing computes the forward pass again
            loss.backward()
            if self._whole is None:
                return
            fits = none_if_out_of_memory(self._backward_whole)
            self._whole = None  # frees the graph
            if not fits:
                self._repeat_in_more_parts()

    def clip(self, optimizer: Optimizer, limit: float | None, algorithm: str | None) -> None:
        """Divide the gradients by the number of targets of the step on all devices, and clip them.

        A step that is left out, or not finite, changes no weights. On a GPU the host learns later
        whether a step was finite; with `nonfinite=stop` none after it changes a weight.

        In float16 an infinite gradient is no error: the scaler skips such steps and lowers its scale.

        Args:
            optimizer: the optimizer, whose gradients are complete and unscaled.
            limit: the largest norm or value; None: no clipping.
            algorithm: `norm` or `value`.

        Raises: NonFiniteStepError.
        """
        weights = weights_with_gradient(optimizer)
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        sums = self._over_devices()
        factor = self._factor(sums)
        is_left_to_it = self.update.can_be_left_to(optimizer, gradients, algorithm)
        if is_left_to_it:
            norm = sharding.whole(nn.utils.get_total_norm(gradients)) * factor
        else:
            multiply(gradients, factor)
            norm = sharding.whole(nn.utils.get_total_norm(gradients))
        numbers = torch.cat([norm.to(sums).reshape(1), sums])
        sent = self._sent(optimizer)
        self.outcomes.send(sent, numbers)
        must_read = not is_left_to_it or not self.steps_behind
        if sent.is_left_out or (must_read and not self._is_finite()):
            optimizer.zero_grad()  # without gradients the optimizer changes nothing
        elif is_left_to_it:
            is_finite = None if must_read else torch.isfinite(numbers.sum())
            self.update.leave_to(optimizer, norm, factor, limit, is_finite)
        else:
            clip(weights, norm, limit, algorithm)

    def end(self, optimizer: Any) -> None:
        """End an optimizer step: free the gradients, read the outcomes of steps that are over by now.

        Raises: NonFiniteStepError if one of those steps was not finite.
        """
        self.update.end(optimizer)
        optimizer.zero_grad()
        self.outcomes.read(self.steps_behind)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of parts per micro-batch, and the counts of the outcomes."""
        return {"parts": self.num_parts, **self.outcomes.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the number of parts and the counts."""
        self.num_parts = state_dict["parts"]
        self.outcomes.load_state_dict(state_dict)

    def _seed_dropout(self, micro_batch: int) -> None:
        """Make dropout depend on seed, micro-batch and rank only; resuming needs no generator state."""
        seed = hash((self.seed, micro_batch, self.module.global_rank)) & (2**63 - 1)
        seed_generators(seed, self.module.device)

    def dropout(self) -> Any:
        """Return a context in which lmft's dropout replaces that of PyTorch on CPUs."""
        if self.module.device.type == "cpu":
            return fast_cpu_dropout()
        return nullcontext()

    def _forget_sums(self) -> None:
        self.nats = 0.0
        self.num_targets = 0

    def _divisor(self, num_targets: int) -> float:
        """Return what sums are divided by: the number of targets, or a constant until it is known."""
        trainer = self.module.trainer
        # On a GPU it is a constant in all cases: graphs hold numbers as they were when recorded.
        may_differ = trainer.accumulate_grad_batches == 1 and trainer.world_size == 1
        if may_differ and self.module.device.type != "cuda":
            return float(max(1, num_targets))
        return _CONSTANT

    def _loss_if_it_fits(self, batch: Batch) -> Tensor | None:
        """Return the loss of a micro-batch, if need be without the memory of graphs; None: no memory."""
        loss = none_if_out_of_memory(lambda: self._loss(batch))
        if loss is None and self.graphs is not None and self.graphs.is_on:
            self.graphs.stop("their memory is needed")
            self._seed_dropout(loop_state.micro_batch_number(self.module.trainer))
            loss = none_if_out_of_memory(lambda: self._loss(batch))
        return loss

    def _scale(self, batch: Batch) -> float:
        """Return the factor that makes Lightning's loss of nats: it divides by the accumulation."""
        return self.module.trainer.accumulate_grad_batches / self._divisor(batch.num_targets)

    def _loss(self, batch: Batch) -> Tensor:
        return self._nats(batch) * self._scale(batch)

    def _nats(self, batch: Batch) -> Tensor:
        total = self.compute_nats(batch)
        self._count(total, batch)
        return total

    def _count(self, nats: Tensor, batch: Batch) -> None:
        self.nats = self.nats + nats.detach()
        self.num_targets += batch.num_targets
        self.computed(batch)

    def _backward_whole(self) -> bool:
        assert self._whole is not None
        batch, loss, leaf = self._whole
        # The leaf's gradient is the factor by which Lightning and its scaler have multiplied the loss.
        loss.backward(leaf.grad)
        if self.graphs is not None:
            self.graphs.note(batch)
        return True

    def _replayed(self, batch: Batch) -> Tensor | None:
        """Return the loss of a micro-batch whose gradients a graph has added; None: it has no graph."""
        nats = None if self.graphs is None else self.graphs.replay(batch)
        if nats is None:
            return None
        self._count(nats, batch)
        return (nats * self._scale(batch)).requires_grad_()

    def _compute(self, batch: Batch) -> Tensor:
        """Add the gradients of a micro-batch, and return its nats: what `forward` and `backward` do."""
        total = self.compute_nats(batch)
        loss = total * self._scale(batch)
        with torch.autocast(self.module.device.type, enabled=False):
            loss.backward(torch.full_like(loss, 1 / self.module.trainer.accumulate_grad_batches))
        return total

    def _over_devices(self) -> Tensor:
        """Return the step's nats; of several devices also its targets and signals, all added up.

        One call adds up all that the processes have to tell each other about a step. [1] or [2 + S]
        """
        device = self.module.device
        number_format = torch.float32 if device.type == "mps" else torch.float64
        nats = torch.as_tensor(self.nats, dtype=number_format, device=device).reshape(1)
        num_processes = self.module.trainer.world_size
        if num_processes == 1:
            return nats
        received = signals.recorded_signal()
        counts = [self.num_targets, *(signum == received for signum in signals.SIGNALS)]
        filled = [torch.full((1,), float(count), dtype=number_format, device=device) for count in counts]
        return sum_over_processes(torch.cat([nats, *filled]))

    def _factor(self, sums: Tensor) -> Any:
        """Return the factor that makes means of the gradients: a number, or a tensor []."""
        divisor = self._divisor(self.num_targets)
        num_processes = self.module.trainer.world_size
        if num_processes == 1:
            return divisor / max(1, self.num_targets)
        # DDP averages gradients over devices; multiplying by their number restores the sum.
        return (divisor * num_processes / sums[1].clamp(min=1.0)).float()

    def _sent(self, optimizer: Optimizer) -> Sent:
        """Return what the host knows of the step."""
        trainer = self.module.trainer
        step = trainer.global_step + 1
        last = self._position
        first = last - last % trainer.accumulate_grad_batches
        place = Place(step, trainer.current_epoch, tuple(range(first, last + 1)))
        scaler = self._scaler
        has_overflowed = False
        if scaler is not None:
            found = scaler._found_inf_per_device(optimizer).values()
            has_overflowed = any(bool(each) for each in found)
            self.outcomes.overflows.count(has_overflowed, step, scaler.get_scale)
        return Sent(place, self.num_targets, self.is_left_out(step), has_overflowed)

    def _is_finite(self) -> bool:
        """Wait for all steps so far; return whether this one is finite. Raises: NonFiniteStepError."""
        self.outcomes.read()
        assert self.outcomes.latest is not None
        return self.outcomes.latest.is_finite

    @property
    def _scaler(self) -> Any:
        """The scaler of 16-mixed; None in other precisions."""
        return getattr(self.module.trainer.precision_plugin, "scaler", None)

    @property
    def _position(self) -> int:
        return loop_state.micro_batch_position(self.module.trainer)

    def _repeat_in_more_parts(self) -> None:
        """Repeat the step so far in smaller and smaller parts.

        Raises: UserError if memory is too small for one example.
        """
        trainer = self.module.trainer
        where = f"step {trainer.global_step + 1}"
        data = _datamodule(trainer, where)
        current = self._position
        first = current - current % trainer.accumulate_grad_batches
        while True:
            if self.num_parts >= data.num_examples(trainer.current_epoch, current):
                what = "out of memory"
                raise UserError(
                    what, f"{where}: even a single example does not fit into memory", _SMALLER
                )
            self.num_parts *= 2
            if self.graphs is not None:
                self.graphs.stop("their memory is needed")
            _zero_gradients(self.module)
            if self.module.device.type == "cuda":
                torch.cuda.empty_cache()
            log.warning(
                "out of memory in step %d: "
                "from now on each micro-batch is split into %d parts (same result)",
                trainer.global_step + 1,
                self.num_parts,
            )
            self._forget_sums()
            runs = (partial(self._run_in_parts, position) for position in range(first, current + 1))
            if all(none_if_out_of_memory(run) for run in runs):
                return

    def _run_in_parts(self, position: int) -> bool:
        """Run forward and backward pass of a micro-batch of this epoch, part by part."""
        trainer = self.module.trainer
        data = _datamodule(trainer, f"step {trainer.global_step + 1}")
        self._seed_dropout(loop_state.micro_batch_number(trainer) - (self._position - position))
        parts = data.split_micro_batch(trainer.current_epoch, position, self.num_parts)
        num_targets = sum(part.num_targets for part in parts)
        for part in parts:
            with trainer.precision_plugin.train_step_context():
                total = self._nats(trainer.strategy.batch_to_device(part))
            loss = total / self._divisor(num_targets)
            with torch.autocast(self.module.device.type, enabled=False):
                trainer.precision_plugin.pre_backward(loss, self.module).backward()
        return True


def _datamodule(trainer: Any, where: str) -> DataModule:
    """Return lmft's DataModule, which can split a micro-batch. Raises: UserError if it is another."""
    if not isinstance(trainer.datamodule, DataModule):
        raise UserError(
            "out of memory", where, "a smaller batch_size of your DataLoader, or a smaller model"
        )
    return trainer.datamodule


def _zero_gradients(module: LightningModule) -> None:
    optimizer: Any = module.optimizers(use_pl_optimizer=False)
    optimizer.zero_grad()
