"""The cross-entropy of logits on a GPU, and its gradient in their place, in one kernel.

Torch's own functions would write several copies of the logits in float32. This kernel reads them twice
and writes them once, as Liger Kernel's does, with the sum of the powers of e corrected whenever a larger
logit is found (Milakov and Gimelshein, 2018: Online normalizer calculation for softmax).
"""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

_COLUMNS = 4096  # of a row that a program reads at a time
_WARPS = 8


def nats_and_gradient(logits: Tensor, targets: Tensor) -> Tensor:
    """Return −log p of each target [n] in float32; write each row's gradient over its logits.

    Args:
        logits: [n, V'], rows of which lie in one piece; afterwards the softmax, less 1 at the target;
            zeros where there is no target. Those of no token are −inf.
        targets: [n] token ids; a negative one stands for none.
    """
    num_rows, num_columns = logits.shape
    nats = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows:
        kernel: Any = _row
        sizes = {"NUM_COLUMNS": num_columns, "COLUMNS": _COLUMNS}
        kernel[(num_rows,)](logits, logits.stride(0), targets, nats, **sizes, num_warps=_WARPS)
    return nats


@triton.jit
def _row(logits, stride, targets, nats, NUM_COLUMNS: tl.constexpr, COLUMNS: tl.constexpr):
    """Compute one row; all arguments but sizes and the stride are addresses."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * stride
    target = tl.load(targets + row)
    largest = float("-inf")
    total = 0.0  # of e to (logit − largest)
    for start in range(0, NUM_COLUMNS, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        values = tl.load(logits + columns, mask=columns < NUM_COLUMNS, other=float("-inf")).to(
            tl.float32
        )
        before = largest
        largest = tl.maximum(before, tl.max(values, axis=0))
        # While all logits were −inf, nothing is added up; their differences would not be numbers.
        shift = tl.where(largest == float("-inf"), 0.0, largest)
        total = total * tl.exp(before - shift) + tl.sum(tl.exp(values - shift), axis=0)
    is_target = target >= 0
    at_target = tl.load(logits + tl.where(is_target, target, 0)).to(tl.float32)
    tl.store(nats + row, tl.where(is_target, tl.log(total) + largest - at_target, 0.0))
    tl.debug_barrier()  # the logit at the target is read before it is written over
    for start in range(0, NUM_COLUMNS, COLUMNS):
        columns = start + tl.arange(0, COLUMNS)
        inside = columns < NUM_COLUMNS
        values = tl.load(logits + columns, mask=inside, other=float("-inf")).to(tl.float32)
        gradient = tl.exp(values - largest) / total - tl.where(columns == target, 1.0, 0.0)
        gradient = tl.where(is_target, gradient, 0.0)
        tl.store(logits + columns, gradient.to(logits.dtype.element_ty), mask=inside)
