"""A thread makes batches ahead, and copies them to a GPU while it computes.

A loader process would have to hand each tensor over through shared memory, which costs the process that
trains more than making the batch.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lmft.data.batch import Batch

_NUM_AHEAD = 2  # batches made before they are asked for
_ALIGNED = 16  # each tensor begins at a multiple of so many bytes of a buffer


class LoaderAhead(DataLoader):
    """A DataLoader without processes whose batches a thread makes and moves to the device.

    Batches that were only made ahead do not count: the position in training is the trainer's.
    """

    def __init__(self, *arguments: Any, device: torch.device, **options: Any):
        """Create the loader; `device` is where its batches go, the rest are DataLoader's arguments."""
        super().__init__(*arguments, **options)
        self.device = device

    def __iter__(self) -> Any:
        """Return an iterator over the batches, whose thread ends with it."""
        return _ahead(super().__iter__(), _Transfer(self.device))


class _Transfer:
    """Moves batches to a device, each by one copy on a stream of its own."""

    def __init__(self, device: torch.device):
        self.device = device
        self.is_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.is_gpu else None

    def send(self, batch: Batch) -> tuple[Batch, Tensor, Any]:
        """Return the batch on the device, the memory of all its tensors, and the event of the copy."""
        others = batch.tensors_besides_inputs()
        tensors = batch.tensors()
        places = []
        size = 0
        for tensor in tensors.values():
            places.append(slice(size, size + tensor.nbytes))
            size += -(-tensor.nbytes // _ALIGNED) * _ALIGNED
        buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self.is_gpu)
        for tensor, place in zip(tensors.values(), places, strict=True):
            buffer[place].view(tensor.dtype).view(tensor.shape).copy_(tensor)
        buffer, event = self._copied(buffer)
        moved = {
            name: buffer[place].view(tensor.dtype).view(tensor.shape)
            for (name, tensor), place in zip(tensors.items(), places, strict=True)
        }
        others = {name: moved.pop(name) for name in others}
        return replace(batch, inputs=moved, **others), buffer, event

    def _copied(self, buffer: Tensor) -> tuple[Tensor, Any]:
        if self.stream is None:
            return buffer, None
        with torch.cuda.stream(self.stream):
            moved = buffer.to(self.device, non_blocking=True)
            return moved, self.stream.record_event()

    def receive(self, sent: tuple[Batch, Tensor, Any]) -> Batch:
        """Return a batch that was sent; what uses it waits for its copy on the device, not here."""
        batch, buffer, event = sent
        if event is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(event)
            buffer.record_stream(stream)  # its memory is not given away before it was used
        return batch


def _ahead(batches: Iterator[Batch], transfer: _Transfer) -> Iterator[Batch]:
    """Yield the batches, which a thread makes and sends ahead; what it raises is raised here."""
    made: SimpleQueue[Callable[[], Batch] | None] = SimpleQueue()  # None: there are no more
    room = threading.Semaphore(_NUM_AHEAD)
    has_ended = threading.Event()

    def make() -> None:
        try:
            while room.acquire() and not has_ended.is_set():
                batch = next(batches, None)
                if batch is None:
                    made.put(None)
                    return
                made.put(partial(transfer.receive, transfer.send(batch)))
        except BaseException as error:  # of any kind: it belongs to the thread that asks for batches
            made.put(partial(_raise, error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while (received := made.get()) is not None:
            room.release()
            yield received()
    finally:
        has_ended.set()
        room.release()
        thread.join()


def _raise(error: BaseException) -> Batch:
    raise error
