"""Rows 10 and 11: SIGTERM and Ctrl-C, wherever they come."""

import os
import shlex
import signal

import pytest
import torch

from lmft.data.store import StoreWriter
from lmft.runs.checkpoints import is_valid
from lmft.system.files import read_json
from tests.helpers.faults import signals
from tests.helpers.processes import contents
from tests.helpers.resuming import assert_same
from tests.helpers.runs import tiny_arguments, train

pytestmark = pytest.mark.timeout(120)

OPTIONS = ("model.config.dropout=0.3", "checkpoint.every_n_steps=100", "trainer.log_every_n_steps=1")


@pytest.fixture(scope="module")
def undisturbed(place):
    """A run that nothing happens to."""
    return train(place, "run.name=undisturbed", *OPTIONS)[0]


def stopped(terminal, code, *options):
    """The command that a training names as a signal ends it: with it, it continues."""
    found, _, err = terminal.run("train", *tiny_arguments(terminal.folder), "run.name=stopped", *options)
    assert found == code and "Traceback" not in err
    record = read_json(terminal.folder / "runs/stopped/metrics.json")
    said, goes_on = err.splitlines()[-2:]
    assert record["status"] == "stopped" and goes_on == f"  continue: {record['command']}"
    assert said.startswith(f"stopped by {signal.Signals(code - 128).name}, saved in ")
    return shlex.split(record["command"])


@pytest.mark.parametrize(
    ("hook", "call", "step", "signum", "code"),
    [
        ("training_step", 4, 4, signal.SIGTERM, 143),
        ("validation_step", 3, 9, signal.SIGINT, 130),
        pytest.param("training_step", 4, 4, signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param("validation_step", 3, 9, signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_fault_10_a_signal_costs_not_a_step(hook, call, step, signum, code, undisturbed, shared_terminal, monkeypatch):
    with monkeypatch.context() as patched:
        signals(patched, hook, [call], signum)
        python, flag, command, *words = stopped(shared_terminal, code, *OPTIONS)
    saved = shared_terminal.folder / f"runs/stopped/checkpoints/step={step}.ckpt"
    assert is_valid(saved) and saved.samefile(saved.with_name("last.ckpt"))
    assert (python, flag, command) == ("python", "-m", "lmft.train")
    shared_terminal.succeeds("train", *words)
    assert_same(shared_terminal.ended("stopped"), undisturbed)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_fault_10_while_the_text_is_tokenised_nothing_is_left_behind(signum, code, terminal, monkeypatch):
    arguments = (*tiny_arguments(terminal.folder), "run.name=stopped", *OPTIONS)
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "append", lambda *_: os.kill(os.getpid(), signum))
        found, _, err = terminal.run("train", *arguments)
    assert found == code and err.splitlines()[-1] == f"stopped by {signal.Signals(signum).name}"
    assert not (terminal.folder / "runs").exists()
    assert not [path for path in contents(terminal.folder / "cache" / "stores") if not path.endswith(".lock")]
    terminal.succeeds("train", *arguments)


def test_fault_11_further_signals_while_it_saves_change_nothing(undisturbed, shared_terminal, monkeypatch):
    save = torch.save

    def impatiently(*arguments):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), signum)
        save(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", impatiently)
        signals(patched, "training_step", [4], signal.SIGINT)
        words = stopped(shared_terminal, 130, *OPTIONS)
    assert is_valid(shared_terminal.folder / "runs/stopped/checkpoints/last.ckpt")
    shared_terminal.succeeds("train", *words[3:])
    assert_same(shared_terminal.ended("stopped"), undisturbed)


def test_fault_10_a_job_that_slurm_requeues_resumes_bit_for_bit(undisturbed, shared_terminal, monkeypatch):
    """Lightning answers SIGUSR1 by asking for it; SLURM then ends the job as any other, by SIGTERM."""
    scontrol = shared_terminal.folder / "scontrol"
    scontrol.write_text("#!/bin/sh\necho $@ > asked\nkill -TERM $PPID\n")
    scontrol.chmod(0o755)
    with monkeypatch.context() as patched:
        for name, value in {"JOB_ID": "7", "JOB_NAME": "films", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
            patched.setenv(f"SLURM_{name}", value)
        patched.setenv("PATH", str(shared_terminal.folder), prepend=os.pathsep)
        signals(patched, "training_step", [4], signal.SIGUSR1)
        words = stopped(shared_terminal, 143, *OPTIONS)
        assert (shared_terminal.folder / "asked").read_text() == "requeue 7\n"
        shared_terminal.succeeds("train", *words[3:])
    assert_same(shared_terminal.ended("stopped"), undisturbed)
