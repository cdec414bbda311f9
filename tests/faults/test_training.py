"""Rows 15 and 21 to 23: numbers that are none, too little memory, and loader processes that die or hang."""

import errno
import json
import os
import signal
import time

import pytest
from safetensors.torch import load_file

from lmft.data.batches import Batches
from lmft.modules.base import LanguageModel
from lmft.runs.checkpoint_io import read
from lmft.runs.folder import RunFolder
from lmft.system.files import read_json
from tests.helpers.closeness import assert_close
from tests.helpers.faults import broken_at, broken_gradient_at, memory_for
from tests.helpers.resuming import assert_same
from tests.helpers.runs import train

pytestmark = pytest.mark.timeout(120)

OPTIONS = ("model.config.dropout=0.3", "checkpoint.every_n_steps=1", "trainer.log_every_n_steps=1")
BROKEN = {
    "nan": broken_at(5, float("nan")),
    "infinity": broken_at(5, float("inf")),
    "a gradient of nan": broken_gradient_at(5),
}


@pytest.fixture(scope="module")
def undisturbed(place):
    """A run that nothing happens to."""
    return train(place, "run.name=undisturbed", *OPTIONS)[0]


@pytest.fixture
def terminal(shared_terminal):
    return shared_terminal


@pytest.fixture
def disturbed(terminal):
    """The folder of another one."""
    return RunFolder(terminal.folder / "runs" / "disturbed")


@pytest.mark.parametrize("what", ["nan", pytest.param("infinity", marks=pytest.mark.slow), "a gradient of nan"])
def test_fault_15_a_step_that_is_no_number_is_not_taken(what, terminal, disturbed, undisturbed, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "nats", BROKEN[what])
        said = terminal.fails("run.name=disturbed", *OPTIONS)
    assert "step 5: the " in said and "is not finite" in said and "nonfinite=skip" in said
    record = json.loads((disturbed.path / "not-finite-step=5.json").read_text())
    assert len(record["examples"]) == 4 and all(each["text"] for each in record["examples"])
    last = read(disturbed.checkpoints / "last.ckpt")
    assert last["global_step"] == 4 and all(weight.isfinite().all() for weight in last["state_dict"].values())
    terminal.trains("run.name=disturbed", *OPTIONS)
    assert_same(terminal.ended("disturbed"), undisturbed)


def test_fault_15_a_step_that_is_no_number_is_skipped_and_counted_on_request(terminal, disturbed, monkeypatch):
    monkeypatch.setattr(LanguageModel, "nats", BROKEN["nan"])
    assert "step 5 is skipped" in terminal.trains("run.name=disturbed", *OPTIONS, "nonfinite=skip")
    assert read_json(disturbed.metrics)["train"]["steps_skipped"] == 1
    assert all(weight.isfinite().all() for weight in load_file(disturbed.model / "model.safetensors").values())


@pytest.mark.parametrize("where", [pytest.param("forward", marks=pytest.mark.slow), "backward"])
def test_fault_21_a_step_that_does_not_fit_is_taken_in_parts(where, terminal, disturbed, monkeypatch):
    """It ends in a step's second micro-batch. (Adam would make much of the rounding of gradients next to none.)"""
    options = ("optimizer=sgd", "optimizer.lr=0.1", "trainer.gradient_clip_val=null")
    options = (*options, "trainer.accumulate_grad_batches=2")
    undisturbed, result = train(terminal.folder, "run.name=with-sgd", *options)
    ample, scarce = LanguageModel.nats, memory_for(1, 1, where)

    def nats(self, batch):
        return (ample if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready < 6 else scarce)(self, batch)

    monkeypatch.setattr(LanguageModel, "nats", nats)
    out = terminal.trains("run.name=disturbed", *options)
    assert "out of memory in step 3: from now on each micro-batch is split into 4 parts" in out
    weights, others = (load_file(paths.model / "model.safetensors") for paths in (disturbed, undisturbed.paths))
    assert_close(weights, others)
    assert read_json(disturbed.metrics)["train"]["targets"] == result["train"]["targets"]


def test_fault_21_a_step_of_which_not_one_example_fits_ends_the_run_in_three_lines(terminal, undisturbed, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "nats", memory_for(0, 3, "backward"))
        said = terminal.fails("run.name=disturbed", *OPTIONS)
    assert (
        "out of memory" in said
        and "step 3: even a single example does not fit into memory" in said
        and "gradient_checkpointing" in said
    )
    terminal.trains("run.name=disturbed", *OPTIONS)
    assert_same(terminal.ended("disturbed"), undisturbed)


def in_a_loader_process(monkeypatch, calls, what):
    """From here on a process that loads batches does `what` before this of its batches."""
    batch, main, count = Batches.__getitem__, os.getpid(), 0

    def loads(self, wanted):
        nonlocal count
        count += 1
        if os.getpid() != main and count == calls:
            what()
        return batch(self, wanted)

    monkeypatch.setattr(Batches, "__getitem__", loads)


def assert_it_is_said_and_goes_on(said, terminal, undisturbed, monkeypatch, what):
    options = ("run.name=disturbed", *OPTIONS, "data.num_workers=1")
    with monkeypatch.context() as patched:
        in_a_loader_process(patched, 7, what)
        assert said in terminal.fails(*options, "data.worker_timeout=2")
    terminal.trains(*options)
    assert_same(terminal.ended("disturbed"), undisturbed)


def test_fault_22_a_loader_process_that_dies_ends_the_run_in_three_lines(terminal, undisturbed, monkeypatch):
    def dies():
        time.sleep(0.5)  # what it had ready is fetched
        os.kill(os.getpid(), signal.SIGKILL)

    assert_it_is_said_and_goes_on("a DataLoader worker died", terminal, undisturbed, monkeypatch, dies)


def test_fault_22_a_batch_that_it_had_ready_is_lost_with_it(terminal, monkeypatch):
    def refuse(_):
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    monkeypatch.setattr("multiprocessing.resource_sharer._resource_sharer.get_connection", refuse)
    said = terminal.fails("run.name=disturbed", *OPTIONS, "data.num_workers=1", "validate_before=false")
    assert "a DataLoader worker died" in said and "data.num_workers=0" in said


@pytest.mark.slow
def test_fault_23_a_loader_process_that_hangs_ends_the_run_in_three_lines(terminal, undisturbed, monkeypatch):
    said = "no batch came from the DataLoader workers within 2 seconds"
    assert_it_is_said_and_goes_on(said, terminal, undisturbed, monkeypatch, lambda: time.sleep(5))
