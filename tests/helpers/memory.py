"""Count the bytes that a computation holds."""

import weakref
from collections.abc import Callable

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside and still exist; `peak` is their most."""

    def __init__(self):
        super().__init__()
        self.now, self.peak, self.known = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage):
        if storage._cdata in self.known:
            return
        size = storage.nbytes()
        self.known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, number, size):
        self.known.discard(number)
        self.now -= size


def peak_of(make_inputs: Callable, compute: Callable) -> int:
    """The most bytes that `compute(*make_inputs())` holds beside its inputs. Nothing is really computed."""
    with FakeTensorMode():
        inputs = make_inputs()
        with Held() as held:
            for one in inputs:
                held.known.add(one.untyped_storage()._cdata)
            compute(*inputs)
    return held.peak
