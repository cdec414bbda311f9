"""Faster training on CPUs: dropout, the allocator's settings, and support for bf16."""

import ctypes
import math
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_RANGE = 2**16  # values of an element's random bits


_torch_dropout = F.dropout


@contextmanager
def fast_cpu_dropout() -> Iterator[None]:
    """Replace F.dropout by the faster `dropout` below, for CPU tensors.

    This covers all modules and functions of PyTorch but scaled_dot_product_attention. A
    TorchFunctionMode would not do: it is suspended in the backward pass, where gradient checkpointing
    computes the forward pass again.
    """
    before = F.dropout
    F.dropout = _dropout  # always the same function, as torch.compile compiles anew for another one
    try:
        yield
    finally:
        F.dropout = before


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if training and 0 < p < 1 and not inplace and input.device.type == "cpu":
        return dropout(input, p)
    return _torch_dropout(input, p, training, inplace)


def dropout(values: Tensor, p: float) -> Tensor:
    """Set each element to 0 with probability p, and scale the others so that the mean stays.

    p is rounded to a multiple of 1/65536, and the scale follows from the rounded p. The seed comes from
    torch's generator, as for F.dropout.
    """
    num_dropped = min(round(p * _RANGE), _RANGE - 1)
    seed = torch.randint(2**63 - 1, ())
    # Only compiled code needs an operator; a call of it takes longer than one of the function.
    draw = _kept_in_compiled_code if torch.compiler.is_compiling() else _kept
    kept = draw(seed, values.shape, num_dropped)
    return values * kept.to(values.dtype).mul_(_RANGE / (_RANGE - num_dropped))


def _kept(seed: Tensor, shape: Sequence[int], num_dropped: int) -> Tensor:
    """Return which elements stay, a bool for each, if `num_dropped` of 65,536 do not."""
    size = math.prod(shape)
    words = np.random.SFC64(int(seed)).random_raw(-(-size // 4))
    bits = torch.from_numpy(words.view(np.int16))[:size].view(shape)
    return bits >= num_dropped - _RANGE // 2


@torch.library.custom_op("lmft::kept_by_dropout", mutates_args=())
def _kept_in_compiled_code(seed: Tensor, shape: Sequence[int], num_dropped: int) -> Tensor:
    """Return what `_kept` returns, as numbers 0 and 1.

    For compiled code, whose own random numbers take longer, and which reads bools one by one.
    """
    return _kept(seed, shape, num_dropped).view(torch.uint8)


@_kept_in_compiled_code.register_fake
def _(seed: Tensor, shape: Sequence[int], num_dropped: int) -> Tensor:
    return seed.new_empty(shape, dtype=torch.uint8)


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
