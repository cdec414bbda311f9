"""What a config plugs into the trainer."""

import sys
from pathlib import Path

import pytest
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger

from lmft.errors import UserError
from lmft.training import extensions
from lmft.training.extensions import (
    add_loggers,
    callbacks,
    check_loggers,
    lightnings_refusals_are_user_errors,
    monitors,
)

LIGHTNINGS = "lightning.pytorch.callbacks"
HERE = "tests.training.test_extensions"


class Mine(Callback):
    """Somebody's own, which may log anything."""


class Written(DummyLogger):
    """Begins with a file, as the record of a service does; `files` are what it may not write over."""

    def __init__(self, save_dir, fails=False):
        super().__init__()
        self.save_dir_given, self.fails = Path(save_dir), fails

    @property
    def experiment(self):
        (self.save_dir_given / "record").mkdir(exist_ok=True)
        (self.save_dir_given / "record" / "log").touch()
        (self.save_dir_given / "note").touch()
        if self.fails:
            raise ConnectionError("no\n  server")
        return None


class Asking(DummyLogger):
    """Asks for a key."""

    @property
    def experiment(self):
        return input("key: ")


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


# loggers


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": f"{HERE}.Written", "fails": True}, "missing a required argument: 'save_dir'"),
        ({"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "a", "nam": "b"}, "(did you mean 'name'?)"),
        ({"_target_": "lightning.pytorch.callbacks.Timer"}, "lightning.pytorch.callbacks.Timer is no Logger"),
        ({"_target_": "lightning.pytorch.loggers.CSVLoger"}, "there is no lightning.pytorch.loggers.CSVLoger"),
    ],
)
def test_loggers_that_cannot_be_are_refused_before_they_are_made(node, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal_of(check_loggers, config(logger={"x": node}))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def trainer(tmp_path):
    return Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)


def test_a_loggers_files_lie_in_the_runs_folder_unless_it_says_otherwise(trainer, tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": None, "name": "csv"}
    elsewhere = {**node, "save_dir": str(tmp_path / "elsewhere")}
    del node["save_dir"]
    given = config(logger={"a": node, "b": elsewhere, "c": None})
    check_loggers(given)
    add_loggers(trainer, given, tmp_path, "first")
    loggers = trainer.loggers
    assert [type(logger) for logger in loggers] == [CSVLogger, CSVLogger]
    assert [Path(str(logger.save_dir)).name for logger in loggers] == [tmp_path.name, "elsewhere"]


def test_one_that_cannot_start_leaves_nothing(trainer, tmp_path):
    (tmp_path / "train.log").write_text("before")
    node = {"_target_": f"{HERE}.Written", "save_dir": str(tmp_path)}
    said = refusal_of(add_loggers, trainer, config(logger={"x": {**node, "fails": True}}), tmp_path, "first")
    assert said.startswith("logger.x cannot start: no server\n") and "logger=none" in said
    assert [path.name for path in tmp_path.iterdir()] == ["train.log"] and trainer.loggers == []
    add_loggers(trainer, config(logger={"x": node}), tmp_path, "first")
    assert (tmp_path / "record" / "log").exists() and len(trainer.loggers) == 1


def test_one_that_writes_files_alone_starts_last(trainer, tmp_path):
    files = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path / "csv")}
    service = {"_target_": f"{HERE}.Written", "save_dir": str(tmp_path)}
    add_loggers(trainer, config(logger={"a": files, "b": service}), tmp_path, "first")
    assert [type(logger).__name__ for logger in trainer.loggers] == ["Written", "CSVLogger"]


def test_none_asks_for_anything(trainer, tmp_path):
    terminal = sys.stdin
    said = refusal_of(add_loggers, trainer, config(logger={"x": {"_target_": f"{HERE}.Asking"}}), tmp_path, "first")
    assert "logger.x cannot start" in said and sys.stdin is terminal


def test_a_logger_of_the_tests_is_one():
    assert issubclass(Written, Logger) and not isinstance(Written(""), CSVLogger)


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
