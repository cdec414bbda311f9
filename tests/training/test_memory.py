import torch

from lmft.training.memory import held_gb


def test_memory_that_is_taken_is_held():
    before = held_gb(torch.device("cpu"))
    taken = torch.ones(50_000_000)
    assert 0.15 < held_gb(torch.device("cpu")) - before < 0.4
    assert taken.sum() == 50_000_000
