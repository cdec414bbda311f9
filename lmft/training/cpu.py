"""Faster training on CPUs: dropout, the allocator's settings, and support for bf16."""

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
    """Replace F.dropout by the faster `dropout` below, for CPU tensors.

    This covers all modules and functions of PyTorch but scaled_dot_product_attention. A
    TorchFunctionMode
    would not do: it is suspended in the backward pass, where gradient checkpointing computes the forward
    pass again.
    """
    original = F.dropout

    def dispatch(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and 0 < p < 1 and not inplace and input.device.type == "cpu":
            return dropout(input, p)
        return original(input, p, training, inplace)

    F.dropout = dispatch
    try:
        yield
    finally:
        F.dropout = original


def dropout(values: Tensor, p: float) -> Tensor:
    """Set each element to 0 with probability p, and scale the others so that the mean stays.

    p is rounded to a multiple of 1/65536, and the scale follows from the rounded p. The seed comes from
    torch's generator, as for F.dropout.
    """
    num_dropped = min(round(p * _RANGE), _RANGE - 1)
    words = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw(-(-values.numel() // 4))
    bits = torch.from_numpy(words.view(np.int16))[: values.numel()].view(values.shape)
    kept = bits >= num_dropped - _RANGE // 2
    return values * kept.to(values.dtype).mul_(_RANGE / (_RANGE - num_dropped))


def cpu_computes_bf16() -> bool:
    """Return whether this CPU multiplies bf16 matrices in hardware; emulation is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4


def keep_freed_memory_in_process() -> None:
    """Tell glibc's malloc, if it is used, not to return freed memory to the operating system.

    By default it returns large blocks, and every step requests them again, page by page. On a virtual
    machine these page faults took up to a third of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)  # take large blocks from the heap too
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)  # shrink the heap only if 2 GB are free at its end
    mallopt(_TOP_PAD, 64 << 20)
