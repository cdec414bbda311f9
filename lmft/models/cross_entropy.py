"""The cross-entropy of a linear layer's outputs, which exist for some rows at a time."""

import functools
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

log = logging.getLogger(__name__)

_ALIGNED = {"cuda": 128}  # GPUs multiply matrices faster if their sides are multiples of this
# Logits in float32 at a time: what a CPU's caches hold, and what keeps a GPU busy.
_IN_FLOAT32 = {"cpu": 1 << 19, "cuda": 1 << 24}
# Rows of a weight's gradient that a CPU multiplies at a time: they stay in its cache while they are
# added to the total and multiplied by a factor.
_ROWS_OF_GRADIENT = {"cpu": 1 << 12}


def linear_nats(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, max_rows: int
) -> Tensor:
    """Return the sum of −log p(target) of a linear layer's outputs, in float32.

    The gradient of a sum is that of each part of its rows, so it is computed while the part's logits
    exist, in their place (as Liger Kernel's fused cross-entropy does); backward only scales it.

    Args:
        hidden: [K, D] inputs of the layer.
        weight: [V, D] of the layer; under autocast it is cast once.
        bias: [V] of the layer, or None.
        targets: [K] token ids; those of −100 are left out.
        max_rows: rows whose logits exist at a time.
    """
    return _LinearNats.apply(hidden, weight, bias, targets, max_rows)


def linear_scores(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, max_rows: int
) -> tuple[Tensor, Tensor]:
    """Return −log p of each target [K] in float32 and whether it has the largest logit [K].

    Without gradients. Targets of −100 have 0 nats and are not predicted right. For the arguments see
    `linear_nats`.
    """
    with torch.no_grad():
        layer = _Layer.of(weight, bias)
        rows = hidden.to(layer.weight.dtype)
        nats = []
        hits = []
        for part in _equal_parts(len(rows), max_rows):
            logits = layer.logits(rows[part])
            hits.append(logits.argmax(-1) == targets[part])
            is_target = targets[part].ge(0)
            tokens = targets[part].clamp(min=0).unsqueeze(1)  # [n, 1]
            each = [_softmax(logits[some], tokens[some])[2] for some in _in_float32(logits)]
            nats.append(torch.cat(each).squeeze(1).where(is_target, 0))
    return torch.cat(nats), torch.cat(hits)


def computed_in(weight: Tensor) -> torch.dtype:
    """Return the number format in which a layer with this weight [V, D] is computed."""
    if torch.is_autocast_enabled(weight.device.type):
        return torch.get_autocast_dtype(weight.device.type)
    return weight.dtype


@dataclass(frozen=True)
class _Layer:
    """A linear layer in the number format it is computed in, with the vocabulary filled up."""

    weight: Tensor  # [V', D]
    bias: Tensor | None  # [V']
    num_real: int  # V
    trained_in: torch.dtype  # the number format of the weight as it is trained

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None) -> "_Layer":
        dtype = computed_in(weight)
        multiple = _ALIGNED.get(weight.device.type, 1)
        num_rows = -(-len(weight) // multiple) * multiple
        if bias is not None:
            bias = _filled_up(bias.detach(), num_rows, dtype)
        return cls(_filled_up(weight.detach(), num_rows, dtype), bias, len(weight), weight.dtype)

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits [n, V']; those beyond the vocabulary are −inf."""
        with torch.autocast(rows.device.type, enabled=False):
            logits = F.linear(rows, self.weight, self.bias)
        if logits.shape[1] > self.num_real:
            logits[:, self.num_real :] = -torch.inf
        return logits


def _filled_up(values: Tensor, num_rows: int, dtype: torch.dtype) -> Tensor:
    """Return values with rows of zeros at their end, in another number format; the same if they fit."""
    if len(values) == num_rows:
        return values.to(dtype)
    filled = values.new_zeros(num_rows, *values.shape[1:], dtype=dtype)
    filled[: len(values)] = values
    return filled


def _equal_parts(num_rows: int, max_rows: int) -> list[slice]:
    """Return parts of the rows: equal ones, but for the last, of a multiple of eight rows."""
    num_parts = -(-num_rows // max_rows)
    size = -(-num_rows // (8 * num_parts)) * 8
    return [slice(start, start + size) for start in range(0, num_rows, size)]


def _in_float32(logits: Tensor) -> Iterator[slice]:
    """Yield parts of logits [n, V'] that are small enough to be converted to float32."""
    most = _IN_FLOAT32.get(logits.device.type, _IN_FLOAT32["cuda"])
    size = max(1, most // logits.shape[1])
    for start in range(0, len(logits), size):
        yield slice(start, start + size)


def _nats_of(logits: Tensor, targets: Tensor, of_bias: Tensor | None) -> Tensor:
    """Return −log p of each target [n]; write each row's gradient over its logits.

    Args:
        logits: [n, V']; afterwards the softmax, less 1 at the target; zeros where there is no target.
        targets: [n] token ids; a negative one stands for none.
        of_bias: [V'] float32, to which the rows of the gradient are added, or None.
    """
    kernel = _kernel(logits.device) if _is_on_gpu(logits) else None
    nats = (kernel or _nats_by_torch)(logits, targets)
    if of_bias is not None:
        of_bias += logits.sum(0, dtype=torch.float32)
    return nats


def _nats_by_torch(logits: Tensor, targets: Tensor) -> Tensor:
    """Do what `nats_and_gradient` of cross_entropy_kernel.py does, by functions of torch."""
    is_target = targets.ge(0).unsqueeze(1)  # [n, 1]
    targets = targets.clamp(min=0).unsqueeze(1)  # [n, 1]
    nats = []
    for some in _in_float32(logits):
        part = logits[some]
        powers, total, nats_of_part = _softmax(part, targets[some])
        nats.append(nats_of_part)
        powers.scatter_add_(1, targets[some], -total)
        torch.mul(powers, is_target[some] / total, out=part)
    return torch.cat(nats).where(is_target, 0).squeeze(1)


@functools.cache
def _kernel(device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Return the kernel of cross_entropy_kernel.py; None if it does not run on this machine."""
    try:
        from lmft.models.cross_entropy_kernel import nats_and_gradient

        nats = nats_and_gradient(torch.zeros(1, 8, device=device), torch.zeros(1, device=device).long())
        if not math.isclose(float(nats), math.log(8), rel_tol=1e-3):
            raise ValueError(f"its kernel gave a loss of {float(nats):.4g} instead of log 8")
        return nats_and_gradient
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of any kind: Triton calls the compilers of the machine
        reason = " ".join(str(error).split())[:200]
        log.warning("the loss is computed by torch's functions, as Triton cannot be used: %s", reason)
        return None


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return e to some logits [m, V'], their sum [m, 1], and −log p of the targets [m, 1], in float32.

    Both may have a common factor a row. Logits in float32 may be overwritten.
    """
    if _is_on_gpu(logits):  # one kernel reads the logits and writes float32
        powers = torch.log_softmax(logits, -1, dtype=torch.float32)
        nats = -powers.gather(1, targets)
        return powers.exp_(), torch.ones_like(nats), nats
    powers = logits.float()
    largest = powers.amax(-1, keepdim=True)
    at_target = powers.gather(1, targets)
    powers.sub_(largest).exp_()
    total = powers.sum(-1, keepdim=True)
    return powers, total, total.log() + largest - at_target


def _is_on_gpu(logits: Tensor) -> bool:
    return logits.is_cuda


class _Gradients:
    """The gradients of hidden states, weight and bias, to which the parts of the rows are added."""

    def __init__(self, layer: _Layer, rows: Tensor, wants: tuple[bool, bool, bool]):
        """Begin with nothing.

        Args:
            layer: the layer.
            rows: [K, D] its inputs, in its number format.
            wants: whether hidden states, weight and bias have gradients.
        """
        wants_hidden, wants_weight, wants_bias = wants
        self.layer = layer
        self.rows = rows
        self.hidden = torch.empty_like(rows) if wants_hidden else None
        self.weight: Tensor | None = None  # [V', D]
        self.wants_weight = wants_weight
        self.bias = rows.new_zeros(len(layer.weight), dtype=torch.float32) if wants_bias else None

    def add(self, part: slice, gradient: Tensor, factor: Tensor | None = None) -> None:
        """Add a part of the rows, given the gradient of its logits [n, V'].

        factor: what the sum of the weight's gradients is then multiplied by.
        """
        with torch.autocast(gradient.device.type, enabled=False):
            if self.hidden is not None:
                torch.mm(gradient, self.layer.weight, out=self.hidden[part])
            if self.wants_weight:
                self._add_to_weight(gradient, self.rows[part], factor)

    def _add_to_weight(self, gradient: Tensor, rows: Tensor, factor: Tensor | None) -> None:
        is_first = self.weight is None
        if self.weight is None:
            shape = self.layer.weight.shape
            self.weight = rows.new_empty(shape, dtype=self.layer.trained_in)
        size = _ROWS_OF_GRADIENT.get(gradient.device.type, len(self.weight))
        for start in range(0, len(self.weight), size):
            total = self.weight[start : start + size]
            _add_product(total, gradient[:, start : start + len(total)].t(), rows, is_first)
            if factor is not None:
                total.mul_(factor)


def _add_product(total: Tensor, product: Tensor, rows: Tensor, is_first: bool) -> None:
    """Add product @ rows to a total, or write it there."""
    if total.dtype == rows.dtype:
        total.addmm_(product, rows, beta=0 if is_first else 1)
    elif total.is_cuda and is_first:  # the library adds up in float32, whatever the factors are in
        torch.mm(product, rows, out_dtype=total.dtype, out=total)
    elif total.is_cuda:
        torch.addmm(total, product, rows, out_dtype=total.dtype, out=total)
    elif is_first:
        total.copy_(product @ rows)
    else:
        total.add_(product @ rows)


class _LinearNats(torch.autograd.Function):
    """Sum of nats of a linear layer's outputs; see `linear_nats`."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, max_rows: int
    ) -> Tensor:
        """Return the sum of nats; keep the gradients of all parts but the last, which stays as it is."""
        layer = _Layer.of(weight, bias)
        rows = hidden.to(layer.weight.dtype)
        gradients = _Gradients(layer, rows, ctx.needs_input_grad[:3])
        nats = []
        *earlier, last = _equal_parts(len(rows), max_rows)
        for part in earlier:
            logits = layer.logits(rows[part])
            nats.append(_nats_of(logits, targets[part], gradients.bias))
            gradients.add(part, logits)
            del logits  # before the next part has some
        logits = layer.logits(rows[last])
        nats.append(_nats_of(logits, targets[last], gradients.bias))
        ctx.last = last, logits
        ctx.gradients = gradients
        ctx.dtypes = hidden.dtype, None if bias is None else bias.dtype
        return torch.cat(nats).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients, multiplied by that of the sum."""
        found = ctx.gradients
        found.add(*ctx.last, factor=gradient)
        ctx.last = ctx.gradients = None  # so that autograd can take the gradients over without a copy
        of_hidden, of_bias = ctx.dtypes
        num_real = found.layer.num_real
        if found.weight is not None and len(found.weight) > num_real:
            found.weight = found.weight[:num_real]
        if found.hidden is not None:
            found.hidden = found.hidden.to(of_hidden) * gradient
        if found.bias is not None:
            found.bias = (found.bias[:num_real] * gradient).to(of_bias)
        return found.hidden, found.weight, found.bias, None, None
