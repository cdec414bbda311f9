"""The callbacks of a config: made, or refused."""

from datetime import timedelta

import pytest
from lightning import Callback
from lightning.pytorch.callbacks import BaseFinetuning, EarlyStopping, LambdaCallback, ModelCheckpoint, Timer

from lmft.errors import UserError
from lmft.training.callbacks.time_limit import TimeLimit
from lmft.training.further_callbacks import callbacks_of, check_averaging

LIGHTNINGS = "lightning.pytorch.callbacks"
HERE = "tests.training.test_further_callbacks"


class Mine(Callback):
    """Somebody's own, which does something."""

    def on_train_batch_end(self, *args, **kwargs):
        """Do it."""


class Idle(Callback):
    """Somebody's own, of which a training calls nothing."""

    def on_predict_end(self, *args, **kwargs):
        """Be called by lmft.predict, or so one may think."""


class MyTimer(Timer):
    """One of Lightning's kind."""


class MyLimit(TimeLimit):
    """One of lmft's kind."""


class Unfreezing(BaseFinetuning):
    """Weights that are trained from an epoch on."""


def made_by_function():
    return MyTimer("00:01:00:00")


def config(**groups):
    return {"callbacks": {}, "logger": {}, "trust": {"targets": [f"{HERE}.*"]}, **groups}


def callback(name, **options):
    home = HERE if name in globals() else LIGHTNINGS
    return config(callbacks={"x": {"_target_": f"{home}.{name}", **options}})


def test_callbacks_are_made_with_their_options():
    early, checkpoint = (
        callbacks_of(callback("EarlyStopping", monitor="val/loss", patience=7))[0],
        callbacks_of(config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.ModelCheckpoint", "monitor": "step"}}))[0],
    )
    assert isinstance(early, EarlyStopping) and early.patience == 7
    assert isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor == "step"
    assert isinstance(callbacks_of(callback("Mine"))[0], Mine)
    assert callbacks_of(config(callbacks={"x": None})) == [], "null leaves one out"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (callback("EarlyStopping"), "missing 1 required positional argument: 'monitor'\n  where: callbacks.x"),
        (callback("EarlyStopping", monitor="val/loss", patince=3), "no 'patince' (did you mean 'patience'?)"),
        (callback("EarlyStopping", monitor="val/loss", mode="least"), "`mode` can be min, max, got least"),
        (
            callback("LearningRateFinder"),
            "does not work in lmft\n  where: callbacks.x\n  fix:   `lmft tune`",
        ),
        (callback("BatchSizeFinder"), "fix:   `lmft tune`"),
        (callback("GradientAccumulationScheduler"), "trainer.accumulate_grad_batches"),
        (callback("BackboneFinetuning"), "model.freeze"),
        (callback("Unfreezing"), "Unfreezing does not work in lmft"),
        (callback("SpikeDetection"), "callbacks=spike"),
        (callback("TQDMProgressBar"), "lmft itself shows steps"),
        (callback("MyTimer", duration="00:01:00:00"), "derive yours from TimeLimit"),
        (callback("made_by_function"), "derive yours from TimeLimit"),
        (callback("Idle"), "Idle does nothing in a training"),
        (config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.Callback"}}), "Callback does nothing in a training"),
        (config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.LambdaCallback"}}), "does nothing in a training"),
        (
            config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.LambdaCallback", "on_fit_end": "print"}}),
            "callbacks.x.on_fit_end=print is not a function",
        ),
        (config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.Timer"}}), "fix:   +callbacks.x.duration=DD:HH:MM:SS"),
        (
            config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.Timer", "duration": "00:00:00:00"}}),
            "callbacks.x.duration=00:00:00:00 must be a time",
        ),
        (callback("EarlyStoping", monitor="val/loss"), f"there is no {LIGHTNINGS}.EarlyStoping"),
        (
            config(callbacks={"x": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "a"}}),
            "lightning.pytorch.loggers.CSVLogger is not a Callback",
        ),
    ],
)
def test_those_that_cannot_be_are_refused(given, said):
    with pytest.raises(UserError) as error:
        callbacks_of(given)
    assert said in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_lightnings_timer_is_the_one_that_can_be_resumed():
    node = {"_target_": f"{LIGHTNINGS}.Timer", "duration": {"minutes": 3}, "interval": "epoch"}
    (limit,) = callbacks_of(config(callbacks={"t": node}))
    assert type(limit) is TimeLimit and limit.option == "callbacks.t.duration"
    assert limit.time_remaining() == 180 and limit._interval == "epoch"
    assert type(callbacks_of(callback("MyLimit", duration="00:01:00:00"))[0]) is MyLimit


def test_times_between_checkpoints_are_written_like_all_times():
    node = {"_target_": f"{LIGHTNINGS}.ModelCheckpoint", "train_time_interval": "00:00:10:00"}
    (checkpoint,) = callbacks_of(config(callbacks={"x": node}))
    assert isinstance(checkpoint, ModelCheckpoint) and checkpoint._train_time_interval == timedelta(minutes=10)
    with pytest.raises(UserError, match="train_time_interval=10 min must be a time"):
        callbacks_of(config(callbacks={"x": {**node, "train_time_interval": "10 min"}}))


def test_a_hook_that_is_given_as_a_function_counts():
    given = {"_target_": f"{LIGHTNINGS}.LambdaCallback", "on_fit_end": {"_target_": f"{HERE}.Mine"}}
    given["on_fit_end"] |= {"_partial_": True}
    (found,) = callbacks_of(config(callbacks={"x": given}))
    assert isinstance(found, LambdaCallback)


@pytest.mark.parametrize(
    ("interval", "given", "expected"),
    [(1, None, False), (1.0, None, None), (2, None, None), (1, True, True), ("00:00:10:00", None, None)],
)
def test_early_stopping_checks_after_each_validation(interval, given, expected):
    """Lightning takes an interval of one micro-batch for one epoch."""
    options = {} if given is None else {"check_on_train_epoch_end": given}
    made = {**callback("EarlyStopping", monitor="val/loss", **options), "trainer": {"val_check_interval": interval}}
    (found,) = callbacks_of(made)
    assert isinstance(found, EarlyStopping) and found._check_on_train_epoch_end is expected


@pytest.mark.parametrize(
    ("max_epochs", "num_steps", "start", "said"),
    [
        (10, 90, 0.8, None),
        (10, 89, 7, None),  # the tenth epoch has begun
        (10, 80, 0.8, "averages up to epoch 10; training ends in epoch 9"),
        (10, 90, 11, "callbacks.x.swa_epoch_start=11: training ends in epoch 10"),
        (-1, 20, 0.8, "swa_epoch_start=0.8 is a share of trainer.max_epochs, which is not set"),
        (-1, 20, 3, None),
        (-1, 18, 3, "callbacks.x.swa_epoch_start=3: training ends in epoch 2"),
    ],
)
def test_averages_that_would_never_be_made_are_refused(max_epochs, num_steps, start, said):
    node = {"_target_": f"{LIGHTNINGS}.StochasticWeightAveraging", "swa_lrs": 1e-3, "swa_epoch_start": start}
    trainer = {"max_epochs": max_epochs, "accumulate_grad_batches": 2}
    given = config(callbacks={"x": node, "y": None, "z": {"_target_": f"{HERE}.Mine"}}, trainer=trainer)
    if said is None:
        check_averaging(given, num_steps, 17)
    else:
        with pytest.raises(UserError) as error:
            check_averaging(given, num_steps, 17)
        assert said in str(error.value) and "callbacks=weight_average" in str(error.value)
