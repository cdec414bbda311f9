"""What makes training faster on CPUs: dropout, the allocator, and which precision they compute in."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_RANGE = 2**16  # values of an element's random bits


@contextmanager
def fast_cpu_dropout() -> Iterator[None]:
    """Inside, the modules and functions of PyTorch that drop elements of CPU tensors do it by the `dropout`
    below.

    (But not attention as PyTorch computes it in one go.) A function mode of torch would reach as far, were it
    not suspended in the backward pass, where `gradient_checkpointing` computes things again.
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

    p is taken to the nearest 65536th, and scaled by that. The randomness follows from torch's generator, as
    that of PyTorch's own does.
    """
    num_dropped = min(round(p * _RANGE), _RANGE - 1)
    words = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw(-(-values.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: values.numel()].view(values.shape)
    kept = bits >= num_dropped - _RANGE // 2
    return values * kept.to(values.dtype).mul_(_RANGE / (_RANGE - num_dropped))


def cpu_computes_bf16() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware; emulated, bf16 would be slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt, as malloc.h numbers them


def keep_freed_memory_in_process() -> None:
    """Lets the allocator keep what is freed, where it is glibc's.

    By default it hands large blocks back to the system, and every step asks for them again, page by page. On
    a virtual machine these page faults took up to a third of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)  # large blocks come from the heap too
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # which shrinks only above 2 GB that are free at its end
    mallopt(_TOP_PAD, 64 << 20)
