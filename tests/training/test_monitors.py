"""What callbacks monitor: a score that something logs."""

import sys

import pytest

from lmft.errors import UserError
from lmft.training.further_callbacks import callbacks_of
from lmft.training.monitors import monitors

LIGHTNINGS = "lightning.pytorch.callbacks"
OWN = """
from lightning import Callback, LightningModule


class Base(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("my/score", 1.0)


class Watching(Base):
    def __init__(self, monitor="val/loss", check_on_train_epoch_end=False):
        self.monitor = monitor
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of one's own: the file of a callback that logs a score and monitors one."""
    (tmp_path / "own_package_of_test.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_package_of_test"
    sys.modules.pop("own_package_of_test", None)


def config(targets=(), model=None, **callbacks):
    return {"callbacks": callbacks, "trust": {"targets": list(targets)}, "data": {}, "model": {"module": model}}


def early(monitor, **options):
    return {"_target_": f"{LIGHTNINGS}.EarlyStopping", "monitor": monitor, **options}


def said_of(given):
    with pytest.raises(UserError) as error:
        callbacks_of(given)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (early("val_loss"), "callbacks.x.monitor=val_loss: unknown (did you mean 'val/loss'?)"),
        (early("epoch"), "callbacks.x.monitor=epoch: unknown"),
        (early("val/los", strict=False), "callbacks.x.monitor=val/los: unknown"),
        (
            {"_target_": f"{LIGHTNINGS}.ModelCheckpoint", "monitor": "train/loss"},
            "one of: val/loss, val/perplexity, val/accuracy, epoch",
        ),
    ],
)
def test_a_score_that_nothing_logs_is_refused(node, said, own):
    assert said in said_of(config(x=node))
    found = said_of(config([f"{own}.*"], x=node, y={"_target_": f"{own}.Base"}))
    assert said in found, "the callback of one's own logs another one"
    assert "has to be written in its file as" in found


def test_the_default_monitor_of_a_callback_of_ones_own_counts(own):
    node = {"_target_": f"{own}.Watching"}
    assert "callbacks.x.monitor=loss: unknown" in said_of(config([f"{own}.*"], x={**node, "monitor": "loss"}))
    (found,) = monitors(config([f"{own}.*"], x=node))
    assert found.argument == "callbacks.x.monitor=val/loss"


@pytest.mark.parametrize("name", ["Base", "Watching"])
def test_what_a_callback_of_ones_own_logs_may_be_monitored(name, own):
    given = config([f"{own}.*"], x=early("my/score"), y={"_target_": f"{own}.{name}"})
    assert [type(each).__name__ for each in callbacks_of(given)] == ["EarlyStopping", name]


def test_what_a_module_of_ones_own_logs_may_be_monitored(own):
    assert callbacks_of(config(model=f"{own}.LightningModule", x=early("val/loss")))
    assert "'my/score'" in said_of(config(model=f"{own}.Base", x=early("my/scores")))
    assert callbacks_of(config(model=f"{own}.Base", x=early("my/score")))


def test_which_of_them_wait_for_a_validation():
    nodes = {
        "a": early("val/loss", check_on_train_epoch_end=True),
        "b": {"_target_": f"{LIGHTNINGS}.ModelCheckpoint", "monitor": "step"},
        "c": early("val/accuracy"),
        "d": {"_target_": f"{LIGHTNINGS}.LearningRateMonitor"},
        "e": None,
        "f": {"_target_": f"{LIGHTNINGS}.EarlyStopping", "_args_": ["val/perplexity"]},
    }
    found = [(each.argument, each.is_read_each_epoch) for each in monitors(config(**nodes))]
    assert found == [
        ("callbacks.a.monitor=val/loss", True),
        ("callbacks.c.monitor=val/accuracy", False),
        ("callbacks.f.monitor=val/perplexity", False),
    ]
