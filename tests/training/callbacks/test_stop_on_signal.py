"""SIGTERM and Ctrl-C amid a training: it is saved, and continues as if nothing had been."""

import os
import signal
from functools import cache

import pytest

from lmft.modules.base import LanguageModel
from lmft.runs.checkpoints import checkpoints_by_step, is_valid
from lmft.runs.folder import RunFolder
from lmft.system.files import read_json
from lmft.system.signals import Stopped, handling_signals
from lmft.training.callbacks.checkpoint import Checkpoints
from tests.helpers.faults import signals
from tests.helpers.resuming import COMMON, assert_same
from tests.helpers.runs import numbers, train

pytestmark = pytest.mark.timeout(120)

# An epoch is nine micro-batches of four blocks, a validation four.
OPTIONS = (*COMMON, "checkpoint.every_n_steps=100")
WAYS = {
    "plain": ("trainer.val_check_interval=5",),
    "accumulated": ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"),
    "amid a step": ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=3"),
    "second epoch only": ("trainer.check_val_every_n_epoch=2",),
    "workers": ("data.num_workers=2",),
    "max_steps": ("trainer.max_steps=15", "trainer.val_check_interval=3"),
    "train only": ("data.validation_fraction=0", "trainer.val_check_interval=1"),
}

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(folder):
    """By the name of a way: a run that nothing happens to, and its metrics."""
    return cache(lambda way: train(folder, f"run.name=undisturbed-{way}".replace(" ", "-"), *OPTIONS, *WAYS[way]))


def stopped(folder, *options):
    """A training that a signal ends."""
    with handling_signals(), pytest.raises(Stopped) as ended:
        train(folder, *options)
    return ended.value


@pytest.mark.parametrize(
    ("way", "hook", "call", "step"),
    [
        ("plain", "training_step", 3, 3),
        pytest.param("plain", "training_step", 5, 5, marks=SLOW),  # a validation follows
        ("plain", "validation_step", 2, 5),
        pytest.param("plain", "validation_step", 4, 5, marks=SLOW),  # the last batch of it
        pytest.param("plain", "on_validation_epoch_end", 1, 6, marks=SLOW),  # a step later
        pytest.param("plain", "training_step", 9, 9, marks=SLOW),
        pytest.param("accumulated", "training_step", 5, 3, marks=SLOW),  # its first micro-batch
        pytest.param("accumulated", "validation_step", 8, 4, marks=SLOW),
        ("amid a step", "validation_step", 5, 3),
        pytest.param("second epoch only", "training_step", 9, 9, marks=SLOW),
        pytest.param("second epoch only", "validation_step", 1, 18, marks=SLOW),
        pytest.param("workers", "validation_step", 2, 9, marks=SLOW),
        pytest.param("max_steps", "validation_step", 18, 15, marks=SLOW),
        pytest.param("train only", "training_step", 4, 4, marks=SLOW),
        pytest.param("train only", "training_step", 18, 18, marks=SLOW),
    ],
)
def test_fault_10_a_stopped_run_resumes_bit_for_bit(way, hook, call, step, undisturbed, folder, monkeypatch):
    name = f"run.name=stopped-{way}-{hook}-{call}".replace(" ", "-")
    with monkeypatch.context() as patched:
        signals(patched, hook, [call])
        end = stopped(folder, name, *OPTIONS, *WAYS[way])
    run = RunFolder(folder / "runs" / name.removeprefix("run.name="))
    assert end.exit_code == 143 and end.command.endswith(name)
    assert end.saved == run.checkpoints / f"step={step}.ckpt" and is_valid(end.saved)
    assert run.status() == "stopped" and read_json(run.metrics)["command"] == end.command

    resumed, result = train(folder, name, *OPTIONS, *WAYS[way])
    assert_same(resumed, undisturbed(way)[0])
    assert numbers(result) == numbers(undisturbed(way)[1])


def test_a_validation_amid_a_step_is_left_unsaved(undisturbed, folder, monkeypatch):
    options = ("run.name=amid-a-step", *OPTIONS, *WAYS["amid a step"], "checkpoint.every_n_steps=1")
    with monkeypatch.context() as patched:
        signals(patched, "validation_step", [2])
        end = stopped(folder, *options)
    assert end.saved is None and end.command.endswith("run.name=amid-a-step")
    assert [path.name for path in checkpoints_by_step(folder / "runs/amid-a-step/checkpoints")] == ["step=1.ckpt"]
    resumed, result = train(folder, *options)
    assert_same(resumed, undisturbed("amid a step")[0])
    assert numbers(result) == numbers(undisturbed("amid a step")[1])


@pytest.mark.slow
def test_stopped_again_and_again(undisturbed, folder, monkeypatch):
    """In one validation three times, in the next step, and at the end of all."""
    options = ("run.name=again", *OPTIONS, *WAYS["plain"])
    for hook in (*["validation_step"] * 3, "training_step", "training_step"):
        with monkeypatch.context() as patched:
            signals(patched, hook, [1])
            stopped(folder, *options)
    resumed, result = train(folder, *options)
    assert_same(resumed, undisturbed("plain")[0])
    assert numbers(result) == numbers(undisturbed("plain")[1])


def test_fault_11_signals_during_the_save_change_nothing(undisturbed, folder, monkeypatch):
    options = ("run.name=impatient", *OPTIONS, *WAYS["plain"])
    save = Checkpoints.save

    def impatiently(self, *args, **options):
        os.kill(os.getpid(), signal.SIGINT)
        path = save(self, *args, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return path

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", impatiently)
        signals(patched, "training_step", [3], signal.SIGINT)
        end = stopped(folder, *options)
    assert end.exit_code == 130 and is_valid(end.saved)
    resumed, _ = train(folder, *options)
    assert_same(resumed, undisturbed("plain")[0])


@pytest.mark.parametrize("call", [1, 3])
def test_before_training_and_after_it_validation_ends_at_once(call, folder, monkeypatch):
    """Once before the first step, once between the last step and the end."""
    validate, count = LanguageModel.on_validation_epoch_end, 0

    def called(self):
        nonlocal count
        count += 1
        if count == call:
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("it went on")
        validate(self)

    monkeypatch.setattr(LanguageModel, "on_validation_epoch_end", called)
    options = (f"run.name=around-{call}", *OPTIONS, "trainer.max_steps=12", "trainer.val_check_interval=9")
    end = stopped(folder, *options)
    assert end.saved is None and end.command.endswith(f"run.name=around-{call}")
    assert RunFolder(folder / f"runs/around-{call}").status() == "stopped"


def test_lightnings_handlers_are_ours_while_training(folder, monkeypatch):
    """Its own make a call that waits for all processes, wherever the signal comes."""
    handlers = []
    monkeypatch.setattr(LanguageModel, "on_train_batch_start", lambda *_: handlers.append(signal.getsignal(15)))
    with handling_signals():
        ours = signal.getsignal(signal.SIGTERM)
        train(folder, "run.name=handlers", "trainer.max_steps=2")
        assert set(handlers) == {ours} and signal.getsignal(signal.SIGTERM) is ours
