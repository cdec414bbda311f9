"""Micro-batches as CUDA graphs, whose kernels a GPU gets all at once.

A GPU often computes kernels faster than Python can launch them one by one. A graph holds all kernels of
a forward and a backward pass, and the memory that they use. Replaying it gives the same numbers to the
bit.
"""

import logging
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from transformers.utils import import_utils

from lmft.data.batch import Batch

log = logging.getLogger(__name__)

_MOST = 16  # graphs; batches of further shapes are computed without one
# Relative differences of a loss whose products round otherwise, and of gradients added in another order.
_CLOSE_LOSS = 1e-4
_CLOSE_GRADIENT = 1e-3
# Code that is recorded; other code may count its calls, or do something else in each.
_PACKAGES = ("lmft", "transformers", "peft", "torch")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Compute = Callable[[Batch], Tensor]
"""Adds the gradients of a batch, and returns its nats []."""


class MicroBatchGraphs:
    """Graphs of the micro-batches of a training, one for each shape of batches.

    A graph reads its batch from memory of its own, and adds to gradients that stay where they are. A
    shape is recorded when it comes for the second time: by then all code that it needs was loaded or
    compiled.
    """

    def __init__(self, compute: Compute, model: nn.Module, may_draw_on_host: bool = False):
        """Begin without graphs.

        Args:
            compute: computes a batch with the model as it is; recorded, and not called for replays.
            model: the model.
            may_draw_on_host: whether random numbers that `compute` draws on the host change nothing.
        """
        self.compute = compute
        self.model = model
        self.weights = list(model.parameters())
        self.may_draw_on_host = may_draw_on_host
        self.is_on = True
        self.num_replayed = 0
        self.num_others = 0
        self._seen: set[Any] = set()
        self._recorded: dict[Any, _Graph] = {}
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []  # where graphs add to them
        self._with_gradient: list[nn.Parameter] = []
        self._pool = new_pool()

    def replay(self, batch: Batch) -> Tensor | None:
        """Return the nats [] of a batch whose gradients a graph has added; None if it has no graph."""
        shape = self._shape(batch)
        graph = self._recorded.get(shape)
        if graph is None and self.is_on and shape in self._seen and len(self._recorded) < _MOST:
            graph = self._record(batch, shape)
        if graph is None:
            return None
        self._use_own_gradients()
        self.num_replayed += 1
        return graph.replay(batch)

    def note(self, batch: Batch) -> None:
        """Note that a batch was computed without a graph: the next one of its shape can be recorded."""
        self.num_others += 1
        self._seen.add(self._shape(batch))
        if not self._gradients:
            self._with_gradient = [weight for weight in self.weights if weight.grad is not None]

    def stop(self, reason: str) -> None:
        """Free all graphs, and record no others. reason: is logged."""
        if not self.is_on:
            return
        log.warning("micro-batches are computed without CUDA graphs from now on: %s", reason)
        self.is_on = False
        self._recorded.clear()
        self._gradients.clear()

    def report(self) -> None:
        """Log how many micro-batches were replayed."""
        if self.num_replayed:
            text = "%d micro-batches were replayed as %d CUDA graphs, %d were computed without one"
            log.info(text, self.num_replayed, len(self._recorded), self.num_others)

    def _shape(self, batch: Batch) -> Any:
        """Return what graphs differ in: shapes of a batch's tensors, and which weights are trained."""
        shapes = [(name, value.shape, value.dtype) for name, value in batch.tensors().items()]
        return tuple(shapes), bytes(weight.requires_grad for weight in self.weights)

    def _record(self, batch: Batch, shape: Any) -> "_Graph | None":
        """Return a graph for batches of a shape; gradients stay as they are. None if that fails."""
        if hook := _foreign_hook(self.model):
            self.stop(f"{hook} is a hook, which a graph would not call")
            return None
        if not self._gradients:
            self._gradients = [(weight, torch.zeros_like(weight)) for weight in self._with_gradient]
        self._use_own_gradients()
        own = [gradient for _, gradient in self._gradients]
        before = [gradient.clone() for gradient in own]
        try:
            graph, problem = self._recorded_and_tried(batch)
        except Exception as error:  # of any kind: the model's code may do what cannot be recorded
            graph, problem = None, " ".join(str(error).split())[:200]
        finally:
            torch._foreach_copy_(own, before)  # pyright: ignore[reportPrivateImportUsage]
            has_others = self._drop_other_gradients()
        if graph is None or problem or has_others:
            self.stop(problem or "other weights have gradients than before")
            return None
        log.info("recorded a CUDA graph for %s", ", ".join(f"{n} {tuple(s)}" for n, s, _ in shape[0]))
        self._recorded[shape] = graph
        return graph

    def _recorded_and_tried(self, batch: Batch) -> "tuple[_Graph, str | None]":
        """Return a graph, and why it cannot be used. Adds gradients. Raises what recording raises."""
        launched = self._tried(self.compute, batch)
        states = _random_states_of_host()
        graph = record(self.compute, batch, self._pool)
        if not self.may_draw_on_host and _random_states_of_host() != states:
            return graph, "the model draws random numbers on the host, which a graph would repeat"
        # A model's code may do something else while it is recorded.
        if not _agree(launched, self._tried(graph.replay, batch)):
            return graph, "a graph gave another loss or gradient than its kernels do when launched"
        return graph, None

    def _tried(self, compute: Compute, batch: Batch) -> tuple[float, float]:
        """Return the nats of a batch and the norm of its gradient, with the dropout of its own step."""
        own = [gradient for _, gradient in self._gradients]
        torch._foreach_zero_(own)  # pyright: ignore[reportPrivateImportUsage]
        with torch.random.fork_rng([batch.targets.device] if batch.targets.is_cuda else []):
            nats = compute(batch).detach().double()
        nats, norm = torch.stack([nats, nn.utils.get_total_norm(own).double()]).tolist()
        return nats, norm

    def _drop_other_gradients(self) -> bool:
        """Drop gradients of weights that had none before; return whether there were any."""
        own = {id(weight) for weight, _ in self._gradients}
        others = [weight for weight in self.weights if weight.grad is not None and id(weight) not in own]
        for weight in others:
            weight.grad = None
        return bool(others)

    def _use_own_gradients(self) -> None:
        """Let weights have the gradients that graphs add to: with what was added so far, or zeros."""
        new = []
        for weight, own in self._gradients:
            if weight.grad is own:
                continue
            if weight.grad is None:
                new.append(own)
            else:
                own.copy_(weight.grad)
            weight.grad = own
        if new:
            torch._foreach_zero_(new)  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class _Graph:
    """A recorded micro-batch."""

    graph: Any
    batch: Batch  # that it reads
    nats: Tensor  # that it writes

    def replay(self, batch: Batch) -> Tensor:
        """Compute a batch; return the memory of its nats, which the next replay overwrites."""
        own = self.batch.tensors()
        for name, value in batch.tensors().items():
            own[name].copy_(value, non_blocking=True)
        self.graph.replay()
        return self.nats


def _agree(launched: tuple[float, float], replayed: tuple[float, float]) -> bool:
    """Return whether nats and gradient norms are equal, up to the order in which kernels add."""
    if launched[0] != replayed[0]:
        log.info("nats are %r by launched kernels, and %r by a graph", launched[0], replayed[0])
    most = 0.0 if torch.are_deterministic_algorithms_enabled() else _CLOSE_LOSS
    is_close = _is_close(launched[0], replayed[0], most)
    return is_close and _is_close(launched[1], replayed[1], _CLOSE_GRADIENT)


def _is_close(one: float, other: float, most: float) -> bool:
    """Return whether two numbers differ by a share at most, or both are none."""
    return math.isclose(one, other, rel_tol=most) or (math.isnan(one) and math.isnan(other))


def graphs_of(module: Any, compute: Compute, has_scaler: bool) -> MicroBatchGraphs | None:
    """Return graphs for a training; None if its micro-batches cannot be recorded, which is logged.

    Args:
        module: the LightningModule.
        compute: as of MicroBatchGraphs.
        has_scaler: whether the training is in 16-mixed.
    """
    if not can_record(module.device):
        return None
    if reason := _cannot_record_reason(module, has_scaler):
        log.info("micro-batches are computed without CUDA graphs: %s", reason)
        return None
    return MicroBatchGraphs(compute, module, may_draw_on_host=_keeps_all_layers(module))


def _cannot_record_reason(module: Any, has_scaler: bool) -> str | None:
    if type(module.trainer.strategy) is not SingleDeviceStrategy:
        return "they are for one device"
    if has_scaler:
        return "the scaler of 16-mixed reads whether a step overflows"
    if any(getattr(part, "gradient_checkpointing", False) for part in module.modules()):
        return "activation checkpointing reads the state of random numbers"
    for code in (module, getattr(module, "model", module)):
        if _package(type(code)) not in _PACKAGES:
            return f"{type(code).__name__} may do in Python what a graph does not repeat"
    return None


def _foreign_hook(model: nn.Module) -> str | None:
    """Return the name of a hook of a module or weight that is not of a package known to work."""
    holders: list[Any] = [*model.modules(), *model.parameters()]
    for holder in holders:
        for kind in _HOOKS:
            for hook in (getattr(holder, kind, None) or {}).values():
                function = getattr(hook, "func", hook)  # of a partial
                if _package(function) not in _PACKAGES:
                    return getattr(function, "__qualname__", type(function).__name__)
    return None


def _package(code: Any) -> str:
    return (getattr(code, "__module__", None) or type(code).__module__).partition(".")[0]


def _keeps_all_layers(module: Any) -> bool:
    """Return whether a model has LayerDrop, but drops no layer: BART then draws numbers for nothing."""
    values = module.model.config.to_dict() if hasattr(module, "model") else {}
    rates = [rate for name, rate in values.items() if name.endswith("layerdrop")]
    return bool(rates) and not any(rates)


def can_record(device: torch.device) -> bool:
    """Return whether graphs exist for a device."""
    return device.type == "cuda"


def new_pool() -> Any:
    """Return a pool of memory for graphs."""
    return torch.cuda.graph_pool_handle()


def record(compute: Compute, batch: Batch, pool: Any) -> _Graph:
    """Record what `compute` does with batches of a shape; nothing is computed.

    Args:
        compute: launches kernels, and waits for none of them.
        batch: a batch on a GPU.
        pool: memory of graphs that run one after the other, and share what they use.

    Raises: RuntimeError, or whatever `compute` raises, if that cannot be recorded.
    """
    own = batch.changed(Tensor.clone)
    device = batch.targets.device
    stream = torch.cuda.current_stream(device)
    graph = torch.cuda.CUDAGraph()
    # The mode is that of this thread: another one copies batches to the GPU meanwhile.
    recording = torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local")
    try:
        with _unknown_to_transformers(), recording:
            nats = compute(own).detach()
    except BaseException:
        # Torch leaves its stream and its generator as they were in the recording.
        torch.cuda.set_stream(stream)
        generator = torch.cuda.default_generators[stream.device_index]
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return _Graph(graph, own, nats)


@contextmanager
def _unknown_to_transformers() -> Iterator[None]:
    """Let transformers make the masks that it makes when nothing is recorded.

    It would add masks that hide nothing, and torch would choose another kernel, which rounds otherwise.
    """
    before = import_utils.is_cuda_stream_capturing
    import_utils.is_cuda_stream_capturing = lambda: False
    try:
        yield
    finally:
        import_utils.is_cuda_stream_capturing = before


def _random_states_of_host() -> Any:
    of_numpy: Any = np.random.get_state()  # noqa: NPY002 (the models' code may use it)
    states = (torch.default_generator.get_state().numpy().tobytes(), random.getstate())
    return *states, of_numpy[1].tobytes(), of_numpy[2]
