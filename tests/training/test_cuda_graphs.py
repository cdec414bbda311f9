"""Graphs of micro-batches, on a CPU: a stand-in computes again what a GPU would replay.

tests/test_cuda.py has real ones.
"""

import random

import numpy as np
import pytest
import torch

from lmft.data.batch import Batch
from lmft.runs.checkpoint_io import read
from lmft.training import cuda_graphs, step
from tests.helpers.runs import rows, train

OPTIONS = ("trainer.log_every_n_steps=1", "validate_before=false", "trainer.max_epochs=-1", "trainer.max_steps=9")


class Stand:
    """A graph that computes its own batch again, in the memory that the recording had."""

    def __init__(self, compute, batch):
        self.compute = compute
        self.batch = batch
        self.nats = torch.zeros(())

    def replay(self):
        self.nats.copy_(self.compute(self.batch).detach())


@pytest.fixture
def recorded(monkeypatch):
    """Lets CPUs record; holds what was recorded."""
    graphs = []

    def record(compute, batch, _pool):
        own = batch.changed(torch.clone)
        graph = Stand(compute, own)
        graphs.append(graph)
        return cuda_graphs._Graph(graph, own, graph.nats)

    monkeypatch.setattr(cuda_graphs, "record", record)
    monkeypatch.setattr(cuda_graphs, "new_pool", lambda: None)
    monkeypatch.setattr(cuda_graphs, "can_record", lambda _: True)
    monkeypatch.setattr(step.OptimizerStep, "_divisor", lambda *_: 1024.0)
    return graphs


def weights_of(run):
    return read(run.paths.checkpoints / "last.ckpt")["state_dict"]


@pytest.mark.parametrize("model", ["distilbert_tiny", "t5_tiny", "xlnet_tiny"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_replays_train_the_same_to_the_bit(model, accumulate, recorded, tmp_path):
    options = (*OPTIONS, f"trainer.accumulate_grad_batches={accumulate}", "data.batch_size=2")
    replayed, _ = train(tmp_path, "run.name=replayed", *options, model=model)
    assert recorded
    num_recorded = len(recorded)
    launched, _ = train(tmp_path, "run.name=launched", "model.cuda_graphs=false", *options, model=model)
    assert len(recorded) == num_recorded
    assert rows(replayed) == rows(launched)
    others = weights_of(launched)
    for name, weight in weights_of(replayed).items():
        assert torch.equal(weight, others[name]), name


class Model(torch.nn.Module):
    """A weight, and a function that adds a batch's gradient to it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.other = torch.nn.Parameter(torch.ones(1))
        self.graphs = cuda_graphs.MicroBatchGraphs(self.compute, self)

    def compute(self, batch):
        total = (self.weight * batch.inputs["input_ids"].sum()).sum()
        total.backward()
        return total

    def launch(self, batch):
        total = self.compute(batch)
        self.graphs.note(batch)
        return total


def batch_of(width):
    tokens = torch.full((2, width), 2)
    return Batch({"input_ids": tokens}, tokens[:, 0], tokens[:, 0], 2 * width, 0, 2)


def recording(monkeypatch, run=lambda compute, batch: None, replayed=lambda compute, batch: compute(batch)):
    """Records by `run`, which may raise, and replays by `replayed`."""

    def record(compute, batch, _pool):
        run(compute, batch)
        own = batch.changed(torch.clone)
        graph = Stand(lambda batch: replayed(compute, batch), own)
        return cuda_graphs._Graph(graph, own, graph.nats)

    monkeypatch.setattr(cuda_graphs, "record", record)
    monkeypatch.setattr(cuda_graphs, "new_pool", lambda: None)


def test_a_shape_is_recorded_when_it_comes_again(monkeypatch):
    recording(monkeypatch)
    model = Model()
    assert model.graphs.replay(batch_of(4)) is None
    model.launch(batch_of(4))
    assert float(model.graphs.replay(batch_of(4))) == 3 * 16
    assert torch.equal(model.weight.grad, torch.full((3,), 32.0))  # of both batches
    assert model.graphs.replay(batch_of(5)) is None
    assert (model.graphs.num_replayed, model.graphs.num_others) == (1, 1)


def test_gradients_begin_with_zeros_after_a_step(monkeypatch):
    recording(monkeypatch)
    model = Model()
    model.launch(batch_of(4))
    for _ in range(2):
        model.weight.grad = None  # as an optimizer does
        model.graphs.replay(batch_of(4))
        assert torch.equal(model.weight.grad, torch.full((3,), 16.0))
    assert model.other.grad is None  # zeros would let the optimizer decay it


def test_what_is_trained_may_change(monkeypatch):
    recording(monkeypatch)
    model = Model()
    model.launch(batch_of(4))
    assert model.graphs.replay(batch_of(4)) is not None
    model.other.requires_grad_(False)
    assert model.graphs.replay(batch_of(4)) is None


def test_there_are_only_so_many_graphs(monkeypatch):
    recording(monkeypatch)
    monkeypatch.setattr(cuda_graphs, "_MOST", 2)
    model = Model()
    found = []
    for width in (3, 4, 5):
        model.launch(batch_of(width))
        found.append(model.graphs.replay(batch_of(width)) is not None)
    assert found == [True, True, False]


def fail(compute, batch):
    raise RuntimeError("operation not permitted when stream is capturing")


def same(compute, batch):
    return compute(batch)


NOT_USED = {
    "torch draws": ("random numbers on the host", lambda *_: torch.rand(()), same),
    "Python draws": ("random numbers on the host", lambda *_: random.random(), same),
    "numpy draws": ("random numbers on the host", lambda *_: np.random.rand(), same),  # noqa: NPY002
    "recording fails": ("from now on: operation not permitted", fail, same),
    "replaying fails": ("from now on: operation not permitted", lambda *_: None, fail),
    "another loss": ("another loss or gradient", lambda *_: None, lambda compute, batch: compute(batch) * 1.001),
}


@pytest.mark.parametrize("case", NOT_USED)
def test_a_graph_that_may_be_wrong_is_not_used(case, monkeypatch, caplog):
    message, run, replayed = NOT_USED[case]
    recording(monkeypatch, run, replayed)
    model = Model()
    for _ in range(3):
        assert model.graphs.replay(batch_of(4)) is None
        model.launch(batch_of(4))
    assert caplog.text.count(message) == 1
    assert torch.equal(model.weight.grad, torch.full((3,), 48.0))


def test_deterministic_trainings_take_no_loss_that_rounds_otherwise(monkeypatch):
    recording(monkeypatch, replayed=lambda compute, batch: compute(batch) * 1.00001)
    for deterministic in (False, True):
        monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda is_on=deterministic: is_on)
        model = Model()
        model.launch(batch_of(4))
        assert (model.graphs.replay(batch_of(4)) is None) == deterministic


def test_hooks_of_the_user_are_called(monkeypatch, caplog):
    recording(monkeypatch)
    model = Model()
    model.launch(batch_of(4))
    model.register_forward_hook(lambda *_: None)
    assert model.graphs.replay(batch_of(4)) is None
    assert "is a hook, which a graph would not call" in caplog.text


DDP = ("trainer=ddp", "trainer.devices=1", "trainer.accelerator=cpu", "trainer.precision=32-true")


@pytest.mark.parametrize("options", [("model.gradient_checkpointing=true",), DDP])
def test_trainings_that_cannot_be_recorded_say_so(options, recorded, tmp_path):
    run, _ = train(tmp_path, "run.name=launched", *OPTIONS, *options, model="distilbert_tiny")
    assert not recorded
    assert "micro-batches are computed without CUDA graphs: " in run.paths.log.read_text()
