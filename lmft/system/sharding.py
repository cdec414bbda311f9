"""Tensors of which each process of a training holds a part: gather them, and take a part of whole ones.

torch's name for such a tensor is DTensor. Gathering is collective: all processes have to do it, in the
same order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as group
from torch import Tensor


class Piece(NamedTuple):
    """A piece of a tensor."""

    begins: tuple[int, ...]
    """Where it begins in each dimension of the tensor."""
    tensor: Tensor


@dataclass(frozen=True)
class Scattered:
    """A tensor whose pieces lie in several files, and are read when they are used.

    Raises: ValueError if the pieces are not all of it.
    """

    name: str
    shape: torch.Size
    dtype: torch.dtype
    pieces: tuple[Piece, ...]

    def __post_init__(self) -> None:
        num_found = sum(piece.tensor.numel() for piece in self.pieces)
        if num_found != self.shape.numel():
            raise ValueError(f"{num_found:,} of {self.shape.numel():,} numbers of {self.name} are there")

    def whole(self) -> Tensor:
        """Return all of it."""
        return self.region([0] * len(self.shape), self.shape)

    def region(self, begins: Sequence[int], sizes: Sequence[int]) -> Tensor:
        """Return a copy of a region, of these sizes, that begins there in each dimension."""
        region = torch.empty(tuple(sizes), dtype=self.dtype)
        for piece in self.pieces:
            source, target = piece.tensor, region
            for dimension, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
                offset = piece.begins[dimension]
                first = max(begin, offset)
                length = min(begin + size, offset + source.shape[dimension]) - first
                if length <= 0:
                    break
                source = source.narrow(dimension, first - offset, length)
                target = target.narrow(dimension, first - begin, length)
            else:
                target.copy_(source)
        return region


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


def taken_apart(value: Any, own: dict[str, Piece], place: str = "") -> Any:
    """Return dicts and lists with a tensor without content for each that is in parts.

    Args:
        value: nested dicts, lists and tuples.
        own: gets what this process holds of these tensors, by their places; of what several processes
            hold, the first one has it.
        place: the place of `value`: its keys, each after a slash.
    """
    if isinstance(value, Mapping):
        return {key: taken_apart(inner, own, f"{place}/{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(taken_apart(inner, own, f"{place}/{i}") for i, inner in enumerate(value))
    if not is_part(value):
        return value
    _, begins = _sizes_and_begins(value)
    part = value.detach().to_local()
    coordinate = value.device_mesh.get_coordinate()
    is_first = not any(
        number
        for number, placement in zip(coordinate, value.placements, strict=True)
        if placement.is_replicate()
    )
    if part.numel() and is_first:
        own[place] = Piece(tuple(begins), part)
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def complete(value: Tensor | Scattered) -> Tensor:
    """Return a tensor that may be scattered."""
    return value.whole() if isinstance(value, Scattered) else value


def part_like(value: Tensor | Scattered, like: Any) -> Tensor:
    """Return a whole tensor in parts like another one's of the same shape; else the tensor itself.

    Only this process's part is read and copied to its device.
    """
    if not is_part(like) or is_part(value) or value.shape != like.shape:
        return complete(value)
    from torch.distributed.tensor import DTensor

    sizes, begins = _sizes_and_begins(like)
    # The part of a process that holds nothing begins at the end.
    begins = [min(begin, length) for begin, length in zip(begins, like.shape, strict=True)]
    if isinstance(value, Scattered):
        part = value.region(begins, sizes).to(like.device)
    else:
        part = value
        for dimension, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
            part = part.narrow(dimension, begin, size)
        part = part.to(like.device, copy=True).contiguous()
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def _sizes_and_begins(tensor: Any) -> tuple[Sequence[int], Sequence[int]]:
    """Return the sizes of this process's part of a tensor, and where it begins in each dimension."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)


def own_rows(rows: Tensor, of: Any) -> Tensor:
    """Return which of these rows of a matrix this process holds, numbered in its part. [n]

    rows: [N] int64.
    """
    if not is_part(of):
        return rows
    sizes, begins = _sizes_and_begins(of)
    return rows[(rows >= begins[0]) & (rows < begins[0] + sizes[0])] - begins[0]


def anywhere(is_so: bool) -> bool:
    """Return whether something is so on any process. All of them have to ask."""
    return any(of_all(is_so))


def of_all(value: Any) -> list[Any]:
    """Return the values that all processes give, in their order. All of them have to call it."""
    if not group.is_available() or not group.is_initialized():
        return [value]
    values: list[Any] = [None] * group.get_world_size()
    group.all_gather_object(values, value)
    return values


def parts_of_state(state_dict: Mapping[str, Any], weights: Sequence[Tensor]) -> dict[str, Any]:
    """Return an optimizer's whole state in parts like those of its weights.

    Args:
        state_dict: `state` and `param_groups` of an optimizer.
        weights: its weights, in the order of its groups.
    """
    numbers = [number for each in state_dict["param_groups"] for number in each["params"]]
    of_number = dict(zip(numbers, weights, strict=False))  # torch's own error is clearer
    state = {
        number: {
            name: part_like(value, of_number.get(number))
            if isinstance(value, Tensor | Scattered)
            else value
            for name, value in values.items()
        }
        for number, values in state_dict["state"].items()
    }
    return {**state_dict, "state": state}
