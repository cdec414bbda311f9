"""Share a model's weights among devices, layer by layer (FSDP2), and put it together again."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from transformers import PreTrainedModel

from lmft.models.adapters import Adapted
from lmft.models.freezing import layer_stacks
from lmft.models.from_first import FromFirst
from lmft.system import sharding


def shard(
    model: PreTrainedModel,
    mesh: DeviceMesh,
    policy: MixedPrecisionPolicy,
    weights: FromFirst | None = None,
) -> None:
    """Share a model's weights among the devices of a mesh, in place.

    Each layer is a group, whose weights are gathered before they are used and freed afterwards. What is
    outside the layers, such as embeddings and head, is the last group.

    Args:
        model: the model.
        mesh: the devices.
        policy: the number formats of gathered weights and of summed gradients.
        weights: gives processes without weights those of the first one; None: all have them.
    """
    for stack in layer_stacks(model).values():
        for layer in stack:
            if weights is not None:
                weights.fill(layer)
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    if weights is not None:
        weights.fill(model)
    # The head needs these weights as soon as the gradient begins, so they stay until then.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    if model.can_generate():
        # It calls parts of the model, such as an encoder, without the model's own forward.
        register_fsdp_forward_method(model, "generate")


def is_sharded(model: nn.Module) -> bool:
    """Return whether a model's weights are shared among devices."""
    return isinstance(model, FSDPModule)


def free_gathered(model: nn.Module) -> None:
    """Free the gathered weights that a forward pass without gradient has left."""
    if isinstance(model, FSDPModule):
        model.reshard()


def without_weights(model: PreTrainedModel | Adapted) -> PreTrainedModel | Adapted:
    """Return a copy of a model, or of one with adapters, whose weights have shapes but no content.

    Buffers are copied.
    """
    outer: Any = model.peft_model if isinstance(model, Adapted) else model
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
        for weight in outer.parameters()
    }
    copied = copy.deepcopy(outer, memo)
    if isinstance(model, Adapted):
        return Adapted(memo[id(model.model)], copied, model.merge)
    return copied


def fill(empty: nn.Module, sharded: nn.Module, keeps: bool) -> None:
    """Give a copy without weights those of the model that it was copied from, on the CPU.

    All processes have to call it. Weights that were tied are tied.

    Args:
        empty: the copy.
        sharded: the model.
        keeps: whether this process keeps what it gathers; else its copy stays without weights.
    """
    free_gathered(sharded)
    found: dict[int, Tensor] = {}
    for name, module in sharded.named_modules():
        target = empty.get_submodule(name)
        for key, weight in module.named_parameters(recurse=False):
            if id(weight) not in found:
                complete = sharding.gathered(weight, keeps)
                found[id(weight)] = nn.Parameter(complete, weight.requires_grad) if keeps else weight
            if keeps:
                setattr(target, key, found[id(weight)])
        for key, buffer in module.named_buffers(recurse=False):
            setattr(target, key, torch.clone(buffer).cpu())
