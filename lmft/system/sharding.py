"""Tensors of which each process of a training holds a part: gather them, and take a part of whole ones.

torch's name for such a tensor is DTensor. Gathering is collective: all processes have to do it, in the
same order.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as group
from torch import Tensor


def is_part(tensor: Any) -> bool:
    """Return whether this process holds only a part of a tensor."""
    # Without a process group there are none, and importing DTensor takes a second.
    if not group.is_available() or not group.is_initialized():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def own_part(tensor: Any) -> Tensor:
    """Return the part of a tensor that this process holds, without a copy; all of it if it is whole."""
    return tensor.to_local() if is_part(tensor) else tensor


def whole(tensor: Any) -> Tensor:
    """Return all of a tensor, on each process and on its device."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def gathered(value: Any, keeps: bool) -> Any:
    """Return dicts and lists with whole tensors on the CPU for each that is in parts.

    One tensor is gathered at a time, so that a device never holds more than one of them whole.

    Args:
        value: nested dicts, lists and tuples.
        keeps: whether this process keeps what it gathers; else None is in its place.
    """
    if isinstance(value, Mapping):
        return {key: gathered(inner, keeps) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(gathered(inner, keeps) for inner in value)
    if not is_part(value):
        return value
    complete = whole(value.detach())
    return complete.cpu() if keeps else None


def part_like(value: Tensor, like: Any) -> Tensor:
    """Return a whole tensor in parts like another one's of the same shape; else the tensor itself.

    Only this process's part is read and copied to its device.
    """
    if not is_part(like) or is_part(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sizes, offsets = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    part = value
    for dimension, (size, offset) in enumerate(zip(sizes, offsets, strict=True)):
        # The part of a process that holds nothing begins at the end.
        part = part.narrow(dimension, min(offset, value.shape[dimension]), size)
    part = part.to(like.device, copy=True).contiguous()
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def own_rows(rows: Tensor, of: Any) -> Tensor:
    """Return which of these rows of a matrix this process holds, numbered in its part. [n]

    rows: [N] int64.
    """
    if not is_part(of):
        return rows
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sizes, offsets = compute_local_shape_and_global_offset(of.shape, of.device_mesh, of.placements)
    return rows[(rows >= offsets[0]) & (rows < offsets[0] + sizes[0])] - offsets[0]


def anywhere(is_so: bool) -> bool:
    """Return whether something is so on any process. All of them have to ask."""
    if not group.is_available() or not group.is_initialized():
        return is_so
    answers: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(answers, is_so)
    return any(answers)


def parts_of_state(state_dict: Mapping[str, Any], weights: Sequence[Tensor]) -> dict[str, Any]:
    """Return an optimizer's whole state in parts like those of its weights.

    Args:
        state_dict: `state` and `param_groups` of an optimizer.
        weights: its weights, in the order of its groups.
    """
    if not any(map(is_part, weights)):
        return dict(state_dict)
    numbers = [number for each in state_dict["param_groups"] for number in each["params"]]
    of_number = dict(zip(numbers, weights, strict=True))
    state = {
        number: {
            name: part_like(value, of_number[number]) if isinstance(value, Tensor) else value
            for name, value in values.items()
        }
        for number, values in state_dict["state"].items()
    }
    return {**state_dict, "state": state}
