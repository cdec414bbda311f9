"""Tensors of which each process holds a part."""

import os

import pytest
import torch
import torch.distributed as group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from lmft.system import sharding
from tests.helpers.several import in_processes


def in_group(task):
    group.init_process_group("gloo")
    try:
        task(init_device_mesh("cpu", (group.get_world_size(),)))
    finally:
        group.destroy_process_group()


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8])
def test_parts_of_a_whole_tensor_are_those_of_torch_and_make_it_whole_again(num_rows):
    """Where a tensor has fewer rows than there are processes, some have none."""

    def task(mesh):
        tensor = torch.arange(num_rows * 3.0).view(num_rows, 3)
        like = distribute_tensor(torch.zeros_like(tensor), mesh, [Shard(0)])
        part = sharding.part_like(tensor, like)
        assert isinstance(part, DTensor) and part.shape == tensor.shape
        expected = distribute_tensor(tensor, mesh, [Shard(0)])
        assert torch.equal(sharding.own_part(part), expected.to_local())
        assert torch.equal(sharding.whole(part), tensor)
        rows = torch.tensor(sorted({0, num_rows - 1}))
        own = sharding.own_rows(rows, part)
        part.to_local()[own] = -1.0
        tensor[rows] = -1.0
        assert torch.equal(sharding.whole(part), tensor)

    assert in_processes(3, in_group, task) == [0, 0, 0]


def test_gathered_keeps_what_is_whole_and_the_kinds_of_collections():
    def task(mesh):
        tensor = torch.arange(4.0)
        part = distribute_tensor(tensor, mesh, [Shard(0)])
        is_first = os.environ["RANK"] == "0"
        found = sharding.gathered({"a": [part, 1], "b": (tensor, "x")}, keeps=is_first)
        assert found["b"] == (tensor, "x") and found["a"][1] == 1
        if is_first:
            assert type(found["a"][0]) is torch.Tensor and torch.equal(found["a"][0], tensor)
        else:
            assert found["a"][0] is None

    assert in_processes(2, in_group, task) == [0, 0]


def test_what_is_so_anywhere_is_known_everywhere():
    def task(mesh):
        assert sharding.anywhere(os.environ["RANK"] == "1") and not sharding.anywhere(False)

    assert in_processes(2, in_group, task) == [0, 0]
    assert sharding.anywhere(True) and not sharding.anywhere(False)  # without processes


def test_without_processes_tensors_are_whole():
    tensor = torch.ones(2)
    rows = torch.tensor([1])
    assert not sharding.is_part(tensor) and sharding.own_part(tensor) is sharding.whole(tensor) is tensor
    assert sharding.part_like(tensor, torch.zeros(2)) is tensor and sharding.own_rows(rows, tensor) is rows
    assert sharding.gathered([tensor], keeps=True)[0] is tensor
