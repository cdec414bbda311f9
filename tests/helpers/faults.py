"""Faults made on purpose: a full disk, too little memory, numbers that are not finite, signals."""

import errno
import io
import os
import signal
from contextlib import suppress

import torch

from lmft.modules.base import LanguageModel


def signals(monkeypatch, hook, calls, signum=signal.SIGTERM):
    """From here on this process gets a signal in each of these calls of a LanguageModel's hook while it is trained."""
    original, count = getattr(LanguageModel, hook), 0

    def called(self, *args):
        nonlocal count
        count += self.trainer.state.fn == "fit"
        if self.trainer.state.fn == "fit" and count in calls:
            os.kill(os.getpid(), signum)
        return original(self, *args)

    monkeypatch.setattr(LanguageModel, hook, called)


whole_nats = LanguageModel.nats


class FailingBackward(torch.autograd.Function):
    """Memory that ends when half of the gradients are there."""

    @staticmethod
    def forward(ctx, hidden):
        return hidden.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise torch.OutOfMemoryError("no more")


def memory_for(num_examples, first_step, where):
    """A module's `nats` on a device on which, from a step on, micro-batches of more examples do not fit."""

    def nats(self, batch):
        if len(batch.inputs["input_ids"]) <= num_examples or self.trainer.global_step + 1 < first_step:
            return whole_nats(self, batch)
        if where == "forward":
            raise torch.OutOfMemoryError("no more")
        weights = self.model.get_input_embeddings()
        hook = weights.register_forward_hook(lambda module, inputs, output: FailingBackward.apply(output))
        try:
            return whole_nats(self, batch)
        finally:
            hook.remove()

    return nats


def broken_at(step, factor):
    """A module's `nats` that is spoilt in one step."""

    def nats(self, batch):
        total = whole_nats(self, batch)
        return total * factor if self.trainer.global_step + 1 == step else total

    return nats


class BrokenGradient(torch.autograd.Function):
    """The loss is as it should be, its gradient is not."""

    @staticmethod
    def forward(ctx, total):
        return total.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def broken_gradient_at(step):
    def nats(self, batch):
        total = whole_nats(self, batch)
        return BrokenGradient.apply(total) if self.trainer.global_step + 1 == step else total

    return nats


def fill_disk(folder, monkeypatch, free_bytes):
    """From now on the folder's disk takes so many bytes more; what is removed from it makes room again."""

    def used():
        sizes = {}
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another process may write there
                sizes[path.stat().st_ino] = path.stat().st_size
        return sum(sizes.values())

    class Limited(io.FileIO):
        def write(self, data):
            if used() + len(data) > limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    limit = used() + free_bytes
    monkeypatch.setattr("lmft.runs.saving.io.FileIO", Limited)
