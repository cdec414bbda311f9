"""Dropout's generators, seeded without the cost of torch.manual_seed."""

import pytest
import torch

from lmft.training.seeding import seed_generators


def test_random_numbers_are_those_of_manual_seed():
    torch.manual_seed(2**62 + 1)
    expected = torch.rand(100)
    seed_generators(2**62 + 1, torch.device("cpu"))
    assert torch.equal(torch.rand(100), expected)


@pytest.mark.cuda
def test_random_numbers_of_a_gpu_are_those_of_manual_seed():
    torch.manual_seed(2**62 + 1)
    expected = torch.rand(100, device="cuda")
    seed_generators(2**62 + 1, torch.device("cuda"))
    assert torch.equal(torch.rand(100, device="cuda"), expected)


def test_devices_of_other_kinds_are_seeded_by_torch(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    seed_generators(7, torch.device("xpu"))
    assert seeds == [7]
