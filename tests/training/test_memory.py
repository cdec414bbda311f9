import mmap

import torch

from lmft.training.memory import held_gb


def test_memory_that_is_taken_is_held():
    before = held_gb(torch.device("cpu"))
    with mmap.mmap(-1, 200_000_000) as taken:  # never memory that the process has freed before
        for page in range(0, len(taken), mmap.PAGESIZE):
            taken[page] = 1
        assert 0.15 < held_gb(torch.device("cpu")) - before < 0.4
