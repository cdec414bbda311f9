"""Weights that the first process of a training has read or drawn, for the models of the other ones.

Such a model is built without weights: its tensors have shapes and no content (torch's device `meta`).
All processes have to call what is here, in the same order.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as group
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmft.system import sharding


def lacks_weights(model: nn.Module) -> bool:
    """Return whether a model was built without weights."""
    return any(weight.is_meta for weight in model.parameters())


class FromFirst:
    """Gives a model without weights those of the first process, a few layers at a time.

    Creating it makes the model like the first one in all that depends on weights: which of them are
    tied, its buffers, how it attends and how it generates.

    Args:
        model: the model; on some processes without weights, on the first one with them.
        device: where a tensor is received.

    Raises: RuntimeError if the models have other modules or other weights.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device):
        self.device = device
        self._is_first = group.get_rank() == 0
        self._make_alike(model)
        self._owners: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for key, weight in module.named_parameters(recurse=False):
                self._owners.setdefault(id(weight), []).append((module, key))

    def fill(self, part: nn.Module) -> None:
        """Give a part of the model its weights, unless they are shared already."""
        for weight in list(part.parameters()):
            if sharding.is_part(weight):
                continue
            content = self._received(weight)
            if weight.is_meta:
                new = nn.Parameter(content, weight.requires_grad)
                for module, key in self._owners[id(weight)]:
                    setattr(module, key, new)

    def _make_alike(self, model: PreTrainedModel) -> None:
        told: list[Any] = [_Described(model) if self._is_first else None]
        group.broadcast_object_list(told, src=0)
        first: _Described = told[0]
        lacks = lacks_weights(model)
        if lacks:
            first.apply(model)
        if _Described(model) != first:
            raise RuntimeError("the model of the first process has other modules or other weights")
        for module, key, tensor in _other_tensors(model):
            content = self._received(tensor)
            if lacks and key in module._buffers:
                module._buffers[key] = content
            elif lacks:
                setattr(module, key, content.cpu())

    def _received(self, tensor: Tensor) -> Tensor:
        """Return the first process's tensor, on this process's device.

        tensor: this process's, of the same shape.
        """
        if self._is_first:
            content = tensor.detach().to(self.device).contiguous()
        else:
            content = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.device)
        if content.numel():
            group.broadcast(content, src=0)
        return content


class _Described:
    """Describes a model but for its tensors' values, so that processes can send it to each other."""

    def __init__(self, model: PreTrainedModel):
        self.weights = [
            (owner, key, name_of, tuple(weight.shape), weight.dtype, weight.requires_grad)
            for owner, key, name_of, weight in _named(model)
        ]
        self.others = [
            (key, tuple(tensor.shape), tensor.dtype) for _, key, tensor in _other_tensors(model)
        ]
        self.attends_by: Any = model.config._attn_implementation
        self.generation = model.generation_config if model.can_generate() else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Described) and (self.weights, self.others, self.attends_by) == (
            other.weights,
            other.others,
            other.attends_by,
        )

    def apply(self, model: PreTrainedModel) -> None:
        """Make a model without weights like the described one."""
        new: dict[str, nn.Parameter] = {}
        for owner, key, name, shape, dtype, requires_grad in self.weights:
            if name not in new:
                content = torch.empty(shape, dtype=dtype, device="meta")
                new[name] = nn.Parameter(content, requires_grad)
            setattr(model.get_submodule(owner), key, new[name])
        if model.config._attn_implementation != self.attends_by:
            model.set_attn_implementation(self.attends_by)
        if self.generation is not None:
            model.generation_config = self.generation


def _named(model: nn.Module) -> Iterator[tuple[str, str, str, Tensor]]:
    """Yield the module, the key in it, the first name and the weight of each weight; tied ones often."""
    names: dict[int, str] = {}
    for owner, module in model.named_modules():
        for key, weight in module.named_parameters(recurse=False):
            yield owner, key, names.setdefault(id(weight), f"{owner}.{key}"), weight


def _other_tensors(model: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield the module, the key in it and the tensor of each tensor that is no weight."""
    for module in model.modules():
        attributes = {**module._buffers, **vars(module)}
        for key in sorted(attributes):
            if isinstance(attributes[key], Tensor):
                yield module, key, attributes[key]
