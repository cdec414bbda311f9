"""Compute activations, norms and attention by torch's own functions, where they give the same.

Transformers writes some of them out in Python: GPT-2's GELU is eight operations over its inputs, each of
which reads and writes memory, and torch's is one. Only methods of such a module are replaced, so names,
weights, config and export stay as they are.
"""

import copy
import logging
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

log = logging.getLogger(__name__)
_GELUS = (partial(F.gelu, approximate="tanh"), F.gelu)
_ROUNDINGS = 4  # by which two ways to compute the same may differ, of the largest output


def use_torch_functions(model: nn.Module) -> None:
    """Replace `forward` of a model's GELUs and RMS norms where torch has the same function."""
    replaced: dict[str, int] = {}
    for module in model.modules():
        _keep_biases_contiguous(module)
        function = _gelu_of(module) or _norm_of(module)
        if function is not None:
            module.forward = function
            name = type(module).__name__
            replaced[name] = replaced.get(name, 0) + 1
    if replaced:
        counts = ", ".join(f"{name} ({count})" for name, count in replaced.items())
        log.info("computed by torch's own functions: %s", counts)


def _keep_biases_contiguous(module: Any) -> None:
    """Let a module of T5's kind make its biases of positions contiguous.

    Torch's attention kernel for GPUs takes no others; without it attention is computed in float32.
    Transformers itself does so since 5.24, layer by layer.
    """
    if hasattr(type(module), "compute_bias"):
        module.compute_bias = partial(_contiguous_bias, module)


def _contiguous_bias(module: Any, *sizes: Any, **more: Any) -> Tensor:
    return type(module).compute_bias(module, *sizes, **more).contiguous()


def _gelu_of(module: nn.Module) -> Any:
    """Return torch's function for a GELU; None if the module is none, or computes that already."""
    is_gelu = "gelu" in type(module).__name__.lower() and not isinstance(module, nn.GELU)
    if not is_gelu or any(True for _ in module.children()) or module.state_dict():
        return None
    values = torch.linspace(-12, 12, 4001)
    own = module(values)
    for function in _GELUS:
        if torch.equal(own, function(values)):
            return None
        if all(_agree(module, function, values.to(dtype)) for dtype in (torch.float32, torch.bfloat16)):
            return function
    return None


def _norm_of(module: nn.Module) -> Any:
    """Return torch's function for an RMS norm: a module with one vector of weights and one number."""
    weights = list(module.parameters())
    if len(weights) != 1 or weights[0].dim() != 1 or list(module.state_dict()) != ["weight"]:
        return None
    if "norm" not in type(module).__name__.lower():
        return None
    numbers = [value for value in vars(module).values() if type(value) is float]
    if isinstance(module, (nn.RMSNorm, nn.LayerNorm)) or len(numbers) != 1:
        return None
    generator = torch.Generator().manual_seed(0)
    tried: Any = copy.deepcopy(module)
    for dtype in (torch.float32, torch.bfloat16):
        tried.to(dtype)
        tried.weight = nn.Parameter(torch.randn(len(weights[0]), generator=generator).to(dtype))
        values = torch.randn(4, len(weights[0]), generator=generator).to(dtype)
        if not _agree(tried, partial(_rms_norm, tried, numbers[0]), values):
            return None
    return partial(_rms_norm, module, numbers[0])


def _rms_norm(module: Any, eps: float, hidden_states: Tensor) -> Tensor:
    weight = module.weight
    if hidden_states.dtype != weight.dtype:  # each model has its own order of rounding then
        return type(module).forward(module, hidden_states)
    return F.rms_norm(hidden_states, weight.shape, weight, eps)


@torch.no_grad()
def _agree(module: nn.Module, function: Any, values: Tensor) -> bool:
    own = module(values)
    other = function(values)
    if own.dtype != other.dtype:
        return False
    largest = _ROUNDINGS * torch.finfo(own.dtype).eps * own.abs().max()
    return bool((own - other).abs().max() <= largest)
