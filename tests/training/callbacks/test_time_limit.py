"""A training whose time is over: stopped, exported as it is, and resumed as if nothing had been."""

from functools import cache

import pytest

from lmft.runs.checkpoints import checkpoints_by_step
from lmft.system.files import read_json
from lmft.training.callbacks.time_limit import TimeLimit
from tests.helpers.resuming import COMMON, assert_same
from tests.helpers.runs import numbers, rows, train

pytestmark = pytest.mark.timeout(120)

# An epoch is nine micro-batches of four blocks.
OPTIONS = (*COMMON, "checkpoint.every_n_steps=100")
TIMER = ("+callbacks.x._target_=lightning.pytorch.callbacks.Timer", "+callbacks.x.duration=00:01:00:00")
WAYS = {
    "plain": ("+trainer.max_time=00:01:00:00",),
    "validated": ("+trainer.max_time={hours: 1}", "trainer.val_check_interval=5"),
    "accumulated": ("+trainer.max_time=00:01:00:00", "trainer.accumulate_grad_batches=2"),
    "second epoch only": ("+trainer.max_time=00:01:00:00", "trainer.check_val_every_n_epoch=2"),
    "averaged": ("+trainer.max_time=00:01:00:00", "callbacks=ema", "callbacks.ema.decay=0.5"),
    "timer": TIMER,
    "timer by epoch": (*TIMER, "+callbacks.x.interval=epoch"),
}
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(folder):
    """By the name of a way: a run whose time is never over, and its metrics."""
    return cache(lambda way: train(folder, f"run.name=in-time-{way}".replace(" ", "-"), *OPTIONS, *WAYS[way]))


@pytest.fixture
def time_is_over(monkeypatch):
    """From the given step on, in trainings within the block."""

    def begin(patched, step):
        def remaining(self, stage="train"):
            trainer = getattr(self, "trainer_of_test", None)  # None: it is only looked at, before a training
            return -1.0 if trainer is not None and trainer.global_step >= step else 1.0

        def end(self, trainer, original=TimeLimit._end_if_over):
            self.trainer_of_test = trainer
            original(self, trainer)

        patched.setattr(TimeLimit, "time_remaining", remaining)
        patched.setattr(TimeLimit, "_end_if_over", end)

    return begin


@pytest.mark.parametrize(
    ("way", "over", "step"),
    [
        ("plain", 5, 5),
        pytest.param("plain", 9, 9, marks=SLOW),  # between two epochs
        ("validated", 5, 5),  # after the validation that was due
        pytest.param("validated", 7, 7, marks=SLOW),
        pytest.param("accumulated", 2, 2, marks=SLOW),
        ("second epoch only", 4, 4),
        pytest.param("averaged", 11, 11, marks=SLOW),
        pytest.param("timer", 3, 3, marks=SLOW),
        ("timer by epoch", 3, 9),
    ],
)
def test_a_stopped_run_is_exported_and_resumes_bit_for_bit(
    way, over, step, undisturbed, folder, monkeypatch, time_is_over, caplog
):
    name = f"run.name=over-{way}-{over}".replace(" ", "-")
    with monkeypatch.context() as patched, caplog.at_level("INFO"):
        time_is_over(patched, over)
        run, result = train(folder, name, *OPTIONS, *WAYS[way])
    assert result["status"] == run.status() == "stopped" and result["steps"] == step
    assert result["command"] == run.command and f"ended the training after {step} of" in caplog.text
    assert f"continue: {run.command}" in caplog.text
    assert result["exported"]["step"] == step and result["exported"]["loss"] == result["after"]["loss"]
    assert (run.paths.model / "model.safetensors").exists() and run.paths.report.exists()
    assert max(int(row["step"]) for row in rows(run)) == step

    resumed, result = train(folder, name, *OPTIONS, *WAYS[way])
    assert_same(resumed, undisturbed(way)[0])
    assert numbers(result) == numbers(undisturbed(way)[1]) and "command" not in result


def test_each_start_has_the_whole_time_and_makes_a_step(folder, monkeypatch, time_is_over):
    """With Lightning's timer the second start would end before its first step."""
    with monkeypatch.context() as patched:
        patched.setattr(TimeLimit, "time_remaining", lambda self, stage="train": -1.0)
        for step in (1, 2, 3):
            run, result = train(folder, "run.name=bit-by-bit", *OPTIONS, *WAYS["plain"])
            assert result["steps"] == step
            assert [path.name for path in checkpoints_by_step(run.paths.checkpoints)][-1] == f"step={step}.ckpt"


def test_the_time_is_that_of_the_clock(folder):
    _, result = train(folder, "run.name=clock", "+trainer.max_time={microseconds: 1}", "checkpoint.keep_last=0")
    assert result["steps"] == 1 and result["status"] == "stopped"


def test_of_two_times_the_shorter_one_ends_the_training(folder, caplog):
    shorter = (*TIMER[:1], "+callbacks.x.duration={microseconds: 1}")
    with caplog.at_level("INFO"):
        _, result = train(folder, "run.name=two", *WAYS["plain"], *shorter)
    assert result["steps"] == 1 and "callbacks.x.duration ended the training after 1 of 18 steps" in caplog.text


def test_a_training_that_is_complete_when_its_time_is_over_is_complete(folder, monkeypatch, time_is_over):
    for name, end in (("last-step", "trainer.max_steps=3"), ("last-epoch", "trainer.max_epochs=1")):
        with monkeypatch.context() as patched:
            time_is_over(patched, 3 if name == "last-step" else 9)
            run, result = train(folder, f"run.name={name}", *WAYS["plain"], end)
        assert result["status"] == read_json(run.paths.metrics)["status"] == "complete"


def test_the_least_number_of_steps_comes_first(folder, monkeypatch, time_is_over):
    with monkeypatch.context() as patched:
        time_is_over(patched, 2)
        _, result = train(folder, "run.name=least", *WAYS["plain"], "+trainer.min_steps=11")
    assert result["steps"] == 11 and result["status"] == "stopped"


def test_without_checkpoints_it_says_that_the_command_begins_anew(folder, monkeypatch, time_is_over, caplog):
    with monkeypatch.context() as patched:
        time_is_over(patched, 2)
        train(folder, "run.name=none-kept", *WAYS["plain"], "checkpoint.keep_last=0")
    assert "no checkpoint was kept, so the same command starts over" in caplog.text


def test_an_export_that_failed_is_completed_with_the_weights_of_the_end(folder, monkeypatch, time_is_over):
    """Their step is best by its last validation, and best.ckpt is of another one."""
    from lmft.assembly import finishing
    from lmft.commands import export
    from lmft.errors import UserError

    def fails(*_):
        raise ValueError("no")

    with monkeypatch.context() as patched:
        time_is_over(patched, 12)
        patched.setattr(finishing, "_export_and_report", fails)
        with pytest.raises(UserError, match="could not be exported"):
            train(folder, "run.name=unexported", *OPTIONS, *WAYS["plain"])
    run = folder / "runs" / "unexported"
    pending = read_json(run / "metrics.json")
    export.main([f"run={run}"])
    found = read_json(run / "metrics.json")
    assert found["exported"] == pending["exported"] and found["exported"]["step"] == 12
    assert found["status"] == "stopped" and found["command"] == pending["command"]
