"""Dropout on CPUs, with as many random bits as it needs.

PyTorch's own draws a whole random number for each element: a third of a step of T5's shape went into that. Here an
element takes 16 bits, a quarter of a word of the generator SFC64.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_RANGE = 2**16  # values of an element's random bits


@contextmanager
def light_dropout() -> Iterator[None]:
    """Inside, the modules and functions of PyTorch that drop elements of CPU tensors do it by the `dropout` below.

    (But not attention as PyTorch computes it in one go.) A function mode of torch would reach as far, were it not
    suspended in the backward pass, where `gradient_checkpointing` computes things again.
    """
    torchs = F.dropout

    def either(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and 0 < p < 1 and not inplace and input.device.type == "cpu":
            return dropout(input, p)
        return torchs(input, p, training, inplace)

    F.dropout = either
    try:
        yield
    finally:
        F.dropout = torchs


def dropout(values: Tensor, p: float) -> Tensor:
    """The values, of which each is 0 with probability p, the others scaled so that the mean stays.

    p is taken to the nearest 65536th, and scaled by that. The randomness follows from torch's generator, as that of
    PyTorch's own does.
    """
    num_dropped = min(round(p * _RANGE), _RANGE - 1)
    words = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw(-(-values.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: values.numel()].view(values.shape)
    kept = bits >= num_dropped - _RANGE // 2
    return values * kept.to(values.dtype).mul_(_RANGE / (_RANGE - num_dropped))
