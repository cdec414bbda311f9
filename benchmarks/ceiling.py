"""The time of a training step's matrix products alone: what no program that computes them can beat.

The products of lmft's step are recorded with their shapes, layouts and number formats, and then computed
again by themselves, with the same threads. Fused attention is counted by its operations at the rate of
the other products.
"""

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.clock import device
from benchmarks.ours import options
from benchmarks.workloads import Workload

aten = torch.ops.aten
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm}
Tensors = tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]


class Recorder(TorchDispatchMode):
    """Counts the products that are computed, by operands, and the operations of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[tuple[Any, Tensors]] = Counter()
        self.flops: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=result)
            if packet in PRODUCTS:
                # On a GPU some name the number format of their result, too.
                operands = [each for each in args if isinstance(each, torch.Tensor)]
                key = packet, tuple((tuple(x.shape), x.stride(), x.dtype) for x in operands)
                self.products[key] += 1
                self.flops["products"] += flops
            else:
                self.flops["attention"] += flops
        return result


def timed(function: Callable[[], object], seconds: float = 0.2) -> float:
    """Return the median seconds of a call, of as many as fit into a time but three at least."""
    function()
    taken = []
    end = time.perf_counter() + seconds
    while len(taken) < 3 or time.perf_counter() < end:
        synchronise()
        start = time.perf_counter()
        function()
        synchronise()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def again(packet: Any, operands: Tensors, seconds: float) -> float:
    """Return the seconds of a product on random operands of these shapes."""
    tensors = []
    for shape, stride, dtype in operands:
        size = 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))
        flat = torch.randn(max(size, math.prod(shape)), device=device()).to(dtype)
        tensors.append(flat.as_strided(shape, stride))
    return timed(lambda: packet(*tensors), seconds)


def recorded(workload: Workload, folder: Path) -> tuple[Recorder, int]:
    """Return what lmft's step computes, and the number of tokens of that step."""
    from lightning.fabric.utilities import move_data_to_device

    from lmft import api

    parts = api.assemble(api.compose(options(workload, folder)))
    module: Any = parts.module().to(device()).train()
    batch: Any = next(iter(parts.datamodule().train_dataloader()))
    batch = move_data_to_device(batch, torch.device(device()))
    with Recorder() as recorder:
        with torch.autocast(device(), torch.bfloat16):
            nats = module.nats(batch)
        nats.backward()
    return recorder, workload.num_inputs or batch.num_tokens


def products(workload: dict[str, Any], folder: str, seconds_each: float) -> dict[str, float]:
    """Return the seconds of a step's products, the tokens/s that these allow, and their GFLOP/s.

    Args:
        workload: the training.
        folder: its text and tokenizer.
        seconds_each: how long each product is computed again and again, to find the median.
    """
    recorder, num_tokens = recorded(Workload(**workload), Path(folder))
    seconds = sum(count * again(*key, seconds_each) for key, count in recorder.products.items())
    rate = recorder.flops["products"] / seconds
    seconds += recorder.flops["attention"] / rate
    return {"step_s": seconds, "tokens_per_s": num_tokens / seconds, "gflops": rate / 1e9}
