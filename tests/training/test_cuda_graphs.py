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
        own = cuda_graphs.copied(batch)
        graph = Stand(compute, own)
        graphs.append(graph)
        return cuda_graphs._Graph(graph, own, graph.nats)

    monkeypatch.setattr(cuda_graphs, "record", record)
    monkeypatch.setattr(cuda_graphs, "new_pool", lambda: None)
    monkeypatch.setattr(step, "can_record", lambda _: True)
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


class Model:
    """A weight, and a function that adds a batch's gradient to it."""

    def __init__(self):
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.other = torch.nn.Parameter(torch.ones(1))
        self.graphs = cuda_graphs.MicroBatchGraphs(self.compute, [self.weight, self.other])

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
        own = cuda_graphs.copied(batch)
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


@pytest.mark.parametrize("draw", [torch.rand, random.random, np.random.rand])
def test_random_numbers_of_the_host_would_be_repeated(draw, monkeypatch, caplog):
    recording(monkeypatch, run=lambda compute, batch: draw(*[()] * (draw is torch.rand)))
    model = Model()
    model.launch(batch_of(4))
    assert model.graphs.replay(batch_of(4)) is None
    assert "random numbers on the host" in caplog.text
    assert torch.equal(model.weight.grad, torch.full((3,), 16.0))


@pytest.mark.parametrize(("factor", "deterministic"), [(1.001, False), (1.00001, True)])
def test_a_graph_that_computes_something_else_is_not_used(factor, deterministic, monkeypatch, caplog):
    recording(monkeypatch, replayed=lambda compute, batch: compute(batch) * factor)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: deterministic)
    model = Model()
    model.launch(batch_of(4))
    assert model.graphs.replay(batch_of(4)) is None
    assert "another loss or gradient" in caplog.text
    assert torch.equal(model.weight.grad, torch.full((3,), 16.0))


def test_a_replay_that_fails_leaves_gradients_as_they_were(monkeypatch, caplog):
    def fail(compute, batch):
        raise torch.OutOfMemoryError("out of memory")

    recording(monkeypatch, replayed=fail)
    model = Model()
    model.launch(batch_of(4))
    assert model.graphs.replay(batch_of(4)) is None
    assert "without CUDA graphs from now on: out of memory" in caplog.text
    assert torch.equal(model.weight.grad, torch.full((3,), 16.0))


def test_code_that_cannot_be_recorded_is_launched(monkeypatch, caplog):
    def fail(compute, batch):
        raise RuntimeError("operation not permitted when stream is capturing")

    recording(monkeypatch, run=fail)
    model = Model()
    for width in (4, 4, 4):
        assert model.graphs.replay(batch_of(width)) is None
        model.launch(batch_of(width))
    assert caplog.text.count("without CUDA graphs from now on: operation not permitted") == 1
    assert torch.equal(model.weight.grad, torch.full((3,), 48.0))
