"""What a config plugs into the trainer."""

import pytest
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lmft.errors import UserError
from lmft.training import extensions
from lmft.training.extensions import (
    callbacks,
    lightnings_refusals_are_user_errors,
    monitors,
)

LIGHTNINGS = "lightning.pytorch.callbacks"
HERE = "tests.training.test_extensions"


class Mine(Callback):
    """Somebody's own, which may log anything."""


def config(**groups):
    return {"callbacks": {}, "logger": {}, "trust": {"targets": [f"{HERE}.*"]}, **groups}


def callback(name, **options):
    return config(callbacks={"x": {"_target_": f"{LIGHTNINGS}.{name}", **options}})


def refusal_of(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


# callbacks


def test_callbacks_are_made_with_their_options():
    early, checkpoint = (
        callbacks(callback("EarlyStopping", monitor="val/loss", patience=7))[0],
        callbacks(callback("ModelCheckpoint", monitor="step"))[0],
    )
    assert isinstance(early, EarlyStopping) and early.patience == 7
    assert isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor == "step"
    assert callbacks(config(callbacks={"x": None})) == [], "null leaves one out"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (callback("EarlyStopping"), "missing 1 required positional argument: 'monitor'\n  where: callbacks.x"),
        (callback("EarlyStopping", monitor="val/loss", patince=3), "no 'patince' (did you mean 'patience'?)"),
        (callback("EarlyStopping", monitor="val/loss", mode="least"), "`mode` can be min, max, got least"),
        (callback("EarlyStopping", monitor="val_loss"), "monitor=val_loss: unknown (did you mean 'val/loss'?)"),
        (callback("EarlyStopping", monitor="epoch"), "callbacks.x.monitor=epoch: unknown"),
        (callback("ModelCheckpoint", monitor="train/loss"), "one of: val/loss, val/perplexity, val/accuracy, epoch"),
        (callback("LearningRateFinder"), "LearningRateFinder does not work in lmft"),
        (callback("BatchSizeFinder"), "data.batch_size"),
        (callback("GradientAccumulationScheduler", scheduling={1: 2}), "trainer.accumulate_grad_batches"),
        (callback("BackboneFinetuning"), "model.freeze"),
        (callback("EarlyStoping", monitor="val/loss"), f"there is no {LIGHTNINGS}.EarlyStoping"),
        (
            config(callbacks={"x": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "a"}}),
            "lightning.pytorch.loggers.CSVLogger is no Callback",
        ),
    ],
)
def test_those_that_cannot_be_are_refused(given, said):
    assert said in refusal_of(callbacks, given)


def test_what_somebodys_own_callback_logs_may_be_monitored():
    watching = callback("EarlyStopping", monitor="my/score")["callbacks"]
    found = callbacks(config(callbacks={**watching, "y": {"_target_": f"{HERE}.Mine"}}))
    assert [type(each).__name__ for each in found] == ["EarlyStopping", "Mine"]


def test_which_of_them_wait_for_a_validation():
    nodes = {
        "a": {"_target_": "x", "monitor": "val/loss", "check_on_train_epoch_end": True},
        "b": {"_target_": "x", "monitor": "step"},
        "c": {"_target_": "x", "monitor": "val/accuracy"},
        "d": {"_target_": "x"},
        "e": None,
    }
    found = [(each.argument, each.is_read_each_epoch) for each in monitors(config(callbacks=nodes))]
    assert found == [("callbacks.a.monitor=val/loss", True), ("callbacks.c.monitor=val/accuracy", False)]


# what arises later


class Lightnings(EarlyStopping):
    """Stands for one of Lightning's, in which something fails."""

    def fails(self):
        raise AttributeError("no backbone")


def test_an_error_inside_a_callback_of_lightnings_names_it(monkeypatch):
    with pytest.raises(AttributeError), lightnings_refusals_are_user_errors():
        Lightnings("val/loss").fails()  # somebody's own: its traceback is of use
    monkeypatch.setattr(Lightnings, "__module__", f"{LIGHTNINGS}.early_stopping")
    with pytest.raises(UserError, match="Lightnings failed: no backbone"), lightnings_refusals_are_user_errors():
        Lightnings("val/loss").fails()


@pytest.mark.parametrize("error", [MisconfigurationException("this and\n that"), ModuleNotFoundError("this and that")])
def test_what_lightning_refuses_is_the_users_to_mend(error):
    with pytest.raises(UserError, match="this and that"), lightnings_refusals_are_user_errors():
        raise error


@pytest.mark.parametrize("error", [ValueError("a bug"), UserError("said"), OSError(28, "full"), RuntimeError("a bug")])
def test_what_is_something_else_stays_it(error):
    with pytest.raises(type(error)) as found, lightnings_refusals_are_user_errors():
        raise error
    assert found.value is error


def test_arguments_that_ddp_does_not_take():
    trainer = Trainer(
        accelerator="cpu", logger=False, strategy=extensions.DDPStrategy(find_unused_parameter=True), devices=1
    )
    assert "(did you mean 'find_unused_parameters'?)" in refusal_of(
        extensions.check_strategy, trainer, {"_target_": "x"}
    )
    extensions.check_strategy(Trainer(accelerator="cpu", logger=False, strategy="ddp", devices=1), "ddp")


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_notebook"])
def test_processes_of_which_this_one_learns_nothing_are_refused(strategy):
    trainer = Trainer(accelerator="cpu", devices=2, logger=False, strategy=strategy)
    assert f"trainer.strategy={strategy} does not work" in refusal_of(extensions.check_strategy, trainer, strategy)
