"""The loggers of a config."""

import sys
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.logger import DummyLogger

from lmft.errors import UserError
from lmft.runs.run import Run
from lmft.training.loggers import add_loggers, check_loggers, running_loggers
from lmft.training.records import Records
from lmft.training.services.base import Start
from tests.helpers.runs import tiny

HERE = "tests.training.test_loggers"


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


def refusal_of(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert len(str(error.value).splitlines()) <= 3
    return str(error.value)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"_target_": f"{HERE}.Written", "fails": True}, "missing a required argument: 'save_dir'"),
        ({"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "a", "nam": "b"}, "(did you mean 'name'?)"),
        ({"_target_": "lightning.pytorch.callbacks.Timer"}, "lightning.pytorch.callbacks.Timer is not a Logger"),
        ({"_target_": "lightning.pytorch.loggers.CSVLoger"}, "there is no lightning.pytorch.loggers.CSVLoger"),
    ],
)
def test_loggers_that_cannot_be_are_refused_before_they_are_made(node, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal_of(check_loggers, config(logger={"x": node}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("service", "options", "said"),
    [
        (
            "TrackioLogger",
            {"project": "p", "spce_id": "x"},
            "TrackioLogger takes no 'spce_id' (did you mean 'space_id'?)",
        ),
        ("MLFlowLogger", {"tracking_uri": "http://127.0.0.1:9"}, "no answer from 127.0.0.1:9 (Connection refused)"),
        ("WandbLogger", {}, "Weights & Biases has no key on this machine"),
    ],
)
def test_services_that_are_not_set_up_are_refused_before_any_work(service, options, said, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    home = "lmft.training.trackio_logger" if service == "TrackioLogger" else "lightning.pytorch.loggers"
    assert said in refusal_of(check_loggers, config(logger={"x": {"_target_": f"{home}.{service}", **options}}))


@pytest.mark.parametrize("way", ["offline", "WANDB_MODE", "WANDB_API_KEY", "netrc"])
def test_weights_and_biases_needs_no_key_offline_and_finds_one(way, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "offline": way == "offline"}
    if way.startswith("WANDB"):
        monkeypatch.setenv(way, "offline")
    if way == "netrc":
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password abc\n")
    check_loggers(config(logger={"x": node}))


@pytest.fixture
def trainer(tmp_path):
    return Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)


def add(trainer, given, folder):
    start = Start(folder, folder, "first", step=-1)
    add_loggers(trainer, given, start, Records(folder / "loggers.json", {}))


def test_a_loggers_files_lie_in_the_runs_folder_unless_it_says_otherwise(trainer, tmp_path):
    node = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": None, "name": "csv"}
    elsewhere = {**node, "save_dir": str(tmp_path / "elsewhere")}
    del node["save_dir"]
    given = config(logger={"a": node, "b": elsewhere, "c": None})
    check_loggers(given)
    add(trainer, given, tmp_path)
    loggers = trainer.loggers
    assert [type(logger) for logger in loggers] == [CSVLogger, CSVLogger]
    assert [Path(str(logger.save_dir)).name for logger in loggers] == [tmp_path.name, "elsewhere"]


def test_one_that_cannot_start_leaves_nothing(trainer, tmp_path):
    given = {**tiny(tmp_path), **config()}
    given["logger"] = {"x": {"_target_": f"{HERE}.Written", "save_dir": f"{tmp_path}/runs/first", "fails": True}}
    given["run"] = {**given["run"], "name": "first"}
    run = Run(given, arguments=())
    with pytest.raises(UserError) as error, run, running_loggers(trainer, given, run):
        raise AssertionError("it started")
    assert str(error.value).startswith("logger.x cannot start: no server\n") and "logger=none" in str(error.value)
    assert not (tmp_path / "runs").exists() and trainer.loggers == []


def test_one_that_writes_files_alone_starts_last(trainer, tmp_path):
    files = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path / "csv")}
    service = {"_target_": f"{HERE}.Written", "save_dir": str(tmp_path)}
    add(trainer, config(logger={"a": files, "b": service}), tmp_path)
    assert [type(logger).__name__ for logger in trainer.loggers] == ["Written", "CSVLogger"]


def test_none_asks_for_anything(trainer, tmp_path):
    terminal = sys.stdin
    said = refusal_of(add, trainer, config(logger={"x": {"_target_": f"{HERE}.Asking"}}), tmp_path)
    assert "logger.x cannot start" in said and sys.stdin is terminal


def test_a_logger_of_the_tests_is_one():
    assert issubclass(Written, Logger) and not isinstance(Written(""), CSVLogger)
