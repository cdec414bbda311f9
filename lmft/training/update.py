"""Divide and clip the gradients of an optimizer step, and keep what is not finite from the weights."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

_DEVICES = ("cpu", "cuda")  # whose fused optimizers read both
_EPSILON = 1e-6  # that of torch's clip_grad_norm_


class Update:
    """Division, clipping and the guard against numbers that are not finite, for one optimizer.

    A fused optimizer divides the gradients by a number on the device while it reads them anyway
    (`grad_scale`), and leaves the weights as they are if another one is 1 (`found_inf`); both were made
    for float16. So the host need not know either, and the gradients are not written again. Other
    optimizers, other devices and clipping by value get gradients that are divided and clipped before.
    """

    def __init__(self, nonfinite: Literal["stop", "skip"]):
        """Create it.

        Args:
            nonfinite: `stop`: after a step that is not finite no further step changes anything; `skip`:
                the next ones do.
        """
        self.nonfinite = nonfinite
        self.takes_scale = False  # whether the optimizer reads grad_scale and found_inf
        self._has_stopped: Tensor | None = None

    def can_be_left_to(
        self, optimizer: Optimizer, gradients: Sequence[Tensor], algorithm: str | None
    ) -> bool:
        """Return whether the optimizer can divide, clip and guard while it changes the weights.

        Args:
            optimizer: the optimizer.
            gradients: its gradients.
            algorithm: how they are clipped: `norm` or `value`; None: `norm`.
        """
        if not self.takes_scale or algorithm == "value" or not gradients:
            return False
        if not all(group.get("fused") for group in optimizer.param_groups):
            return False
        # A scale is a number in float32: too short for gradients in float64. Gradients of a subclass are
        # divided among devices.
        first = gradients[0]
        if (
            first.device.type not in _DEVICES
            or type(first) is not Tensor
            or first.dtype == torch.float64
        ):
            return False
        return not _begins_momentum(optimizer)

    def leave_to(
        self, optimizer: Optimizer, norm: Tensor, factor: Any, limit: float | None, finite: Tensor | None
    ) -> None:
        """Hand division, clipping and the guard to the optimizer's next step.

        Args:
            optimizer: the optimizer.
            norm: of the gradients after division. []
            factor: by which the gradients are multiplied: a number, or a tensor [].
            limit: the largest norm; None: no clipping.
            finite: whether the step is finite, on the device []; None: the host knows that it is.
        """
        scale: Any = 1.0 / factor
        if limit:
            scale = torch.clamp((norm.float() + _EPSILON) / limit, min=1.0) / factor
        elif not isinstance(scale, Tensor) and scale != 1.0:
            scale = torch.full((), scale, device=norm.device)
        if isinstance(scale, Tensor):
            optimizer.grad_scale = scale.float()  # pyright: ignore[reportAttributeAccessIssue]
        if finite is not None:
            unfit = 1.0 - finite.float()
            if self.nonfinite == "stop":
                if self._has_stopped is not None:
                    unfit = torch.maximum(unfit, self._has_stopped)
                self._has_stopped = unfit
            optimizer.found_inf = unfit  # pyright: ignore[reportAttributeAccessIssue]

    def end(self, optimizer: Any) -> None:
        """Take back what `leave_to` has handed over, after the optimizer's step."""
        optimizer.grad_scale = None
        optimizer.found_inf = None

    def begin(self) -> None:
        """Begin a training: steps change the weights, even if one before it was not finite."""
        self._has_stopped = None


def multiply(gradients: list[Tensor], factor: Any) -> None:
    """Multiply the gradients by a number, or a tensor []."""
    if gradients and (isinstance(factor, Tensor) or factor != 1.0):
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]


def clip(weights: Sequence[Tensor], norm: Tensor, limit: float | None, algorithm: str | None) -> None:
    """Clip the gradients of weights.

    Args:
        weights: the weights that have a gradient.
        norm: of their gradients. []
        limit: the largest norm or value; None: no clipping.
        algorithm: `norm` or `value`; None: `norm`.
    """
    if not limit:
        return
    if algorithm == "value":
        nn.utils.clip_grad_value_(weights, limit)
    else:
        nn.utils.clip_grads_with_norm_(weights, limit, norm)


def weights_with_gradient(optimizer: Optimizer) -> list[Tensor]:
    """Return the weights that have a gradient.

    The optimizer's list of them is 5 to 30 times as fast to read as the modules of a model.
    """
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def _begins_momentum(optimizer: Optimizer) -> bool:
    """Return whether a weight of SGD has no momentum yet: a step left out would leave it undefined."""
    if not isinstance(optimizer, SGD):
        return False
    return any(
        weight.grad is not None and "momentum_buffer" not in optimizer.state.get(weight, ())
        for group in optimizer.param_groups
        if group["momentum"]
        for weight in group["params"]
    )
