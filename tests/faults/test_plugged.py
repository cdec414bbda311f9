"""What is plugged into Lightning's Trainer, as it is typed: it works, or is refused before anything is left behind."""

import importlib.util
import json
import os
import pty
import subprocess
import sys

import pytest

from lmft.runs.folder import RunFolder
from tests.helpers.processes import contents
from tests.helpers.resuming import assert_same, cut
from tests.helpers.runs import CHECKOUT, rows, tiny_arguments, train

pytestmark = pytest.mark.timeout(120)

CALLBACK = "+callbacks.x._target_=lightning.pytorch.callbacks."
QUICK = ("run.name=x", "validate_before=false", "trainer.max_steps=3", "trainer.log_every_n_steps=1")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("callbacks=early_stopping", "callbacks.early_stopping.monitor=val_loss"), "(did you mean 'val/loss'?)"),
        (("callbacks=early_stopping", "data.validation_fraction=0"), "there is no validation text"),
        (("callbacks=early_stopping", "trainer.max_steps=4"), "its first validation comes after 9"),
        ((f"{CALLBACK}ModelCheckpoint", "+callbacks.x.monitor=val/los"), "callbacks.x.monitor=val/los: unknown"),
        (("trainer.val_check_interval=500",), "is more than the 9 micro-batches of an epoch"),
        (("+trainer.overfit_batches=1",), "debug=overfit"),
        (("+trainer.fast_dev_run=true",), "debug=fast"),
        ((f"{CALLBACK}LearningRateFinder",), "LearningRateFinder does not work in lmft"),
        ((f"{CALLBACK}BaseFinetuning",), "model.freeze="),
        ((f"{CALLBACK}RichProgressBar",), "RichProgressBar does not work in lmft"),
        (("+trainer.logger=false", "+trainer.callbacks=[]"), "trainer.logger, trainer.callbacks cannot be set"),
        (("+trainer.foo=1",), "Trainer takes no 'foo'"),
        (("+trainer.strategy=ddpp",), "invalid strategy name"),
        (("+trainer.max_time=soon",), "DD:HH:MM:SS"),
        (("trainer._target_=lightning.pytorch.callbacks.Timer",), "is not a Trainer"),
        (("trainer.precision=16-mixed",), "on cpu it would be bf16-mixed"),
        (("trainer.precision=bf16",), "trainer.precision=bf16-mixed"),
        (("scheduler.options.foo=1",), "scheduler.name=linear: "),
    ],
)
def test_callbacks_and_trainer_options_that_do_not_fit_are_refused(overrides, said, terminal):
    assert said in terminal.refuses_to_train(*overrides)
    assert not (terminal.folder / "runs").exists()


@pytest.mark.parametrize("logger", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_logger_without_its_package_is_refused_with_the_command_that_installs_it(logger, terminal, monkeypatch):
    monkeypatch.setattr("lmft.config.extras.find_spec", lambda package: None)
    assert f'pip install "lightning-lmft[{logger}]"' in terminal.refuses_to_train(f"logger={logger}")
    assert not (terminal.folder / "runs").exists() and not (terminal.folder / "cache").exists()


def test_a_share_of_few_batches_is_one_of_them(terminal):
    limits = ("trainer.limit_train_batches=0.05", "trainer.limit_val_batches=0.05")
    terminal.trains(*limits, "run.name=x", "trainer.max_epochs=3")
    found = json.loads((terminal.folder / "runs" / "x" / "metrics.json").read_text())
    assert found["steps"] == 3 and found["epochs"] == 3
    assert found["before"]["targets"] == found["after"]["targets"] > 0
    terminal.trains(*limits, "run.name=x", "trainer.max_epochs=4")
    assert json.loads((terminal.folder / "runs" / "x" / "metrics.json").read_text())["steps"] == 4
    assert "loss" in terminal.succeeds("evaluate", "run=runs/x", "trainer=cpu", "trainer.limit_val_batches=0.05")


def test_evaluating_on_nothing_is_refused(terminal):
    terminal.trains(*QUICK)
    assert "leaves nothing to evaluate on" in terminal.refuses("evaluate", "run=runs/x", "trainer.limit_val_batches=0")
    given = ("run=runs/x", "trainer=cpu", "+logger.x._target_=lightning.pytorch.loggers.CSVLogger")
    assert "output=FILE.json" in terminal.refuses("evaluate", *given, "+logger.x.save_dir=.")


@pytest.mark.parametrize(
    "profiler",
    [
        ("trainer.profiler=simple",),
        pytest.param(("trainer.profiler=advanced",), marks=pytest.mark.slow),
        pytest.param(
            (
                "+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler",
                "+trainer.profiler.extended=false",
            ),
            marks=pytest.mark.slow,
        ),
        ("+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler", "+trainer.profiler.filename=own"),
    ],
    ids=["simple", "advanced", "an object", "one with a file"],
)
def test_the_profilers_table_is_printed_and_written(profiler, terminal):
    debug = ("debug=profile",) if not profiler[0].startswith("+") else ()
    out = terminal.trains(*debug, *profiler, *QUICK)
    run = terminal.folder / "runs" / "x"
    table = (run / "profile.txt").read_text()
    assert table in out and "FIT Profiler Report" in table and "optimizer_step" in table
    assert (run / "fit-own.txt").exists() == ("+trainer.profiler.filename=own" in profiler)


def test_lightnings_model_checkpoint_keeps_its_files_apart_from_the_runs(terminal):
    options = (f"{CALLBACK}ModelCheckpoint", "+callbacks.x.monitor=val/loss", "+callbacks.x.save_last=true")
    name = '+callbacks.x.filename="best-{val/loss:.2f}"'  # of which the slash makes a folder
    terminal.trains(*options, name, "run.name=x")
    run = RunFolder(terminal.folder / "runs" / "x")
    files = {path.relative_to(run.path / "lightning").parts for path in (run.path / "lightning").rglob("*.ckpt")}
    assert [parts[0] for parts in sorted(files)] == ["checkpoints"] * 2 and ("checkpoints", "last.ckpt") in files
    plain, _ = train(terminal.folder, "run.name=plain")
    kept = sorted(path.name for path in plain.paths.checkpoints.iterdir())
    assert sorted(path.name for path in run.checkpoints.iterdir()) == kept
    terminal.trains(*options, name, "run.name=x", "trainer.max_epochs=3")
    assert json.loads(run.metrics.read_text())["steps"] == 27


@pytest.mark.parametrize("step", [5, pytest.param(9, marks=pytest.mark.slow), pytest.param(13, marks=pytest.mark.slow)])
def test_early_stopping_resumes_bit_for_bit(step, folder):
    options = ("callbacks=early_stopping", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1")
    whole, _ = train(folder, f"run.name=early-{step}", *options)
    cut(whole, f"early-{step}-cut", step)
    again, _ = train(folder, f"run.name=early-{step}-cut", *options)
    assert_same(again, whole)
    assert rows(again) == rows(whole)


def test_early_stopping_by_the_clock(terminal):
    terminal.trains("callbacks=early_stopping", "trainer.val_check_interval=00:00:00:01", "run.name=x")


def test_early_stopping_says_why_training_ends(terminal, caplog):
    options = ("callbacks=early_stopping", "callbacks.early_stopping.min_delta=100", "trainer.max_epochs=9")
    code, out, err = terminal.run("train", *tiny_arguments(terminal.folder), *options, "run.name=x")
    said = out + err + caplog.text  # whether Lightning writes by itself depends on what was set up when it was loaded
    assert code == 0 and "Metric val/loss improved" in said
    assert "did not improve in the last 3 records" in said


def test_what_has_no_column_in_metrics_csv_is_told_once(terminal):
    out = terminal.trains(f"{CALLBACK}LearningRateMonitor", *QUICK)
    assert out.count("metrics.csv has no column for lr-AdamW") == 1
    found = rows(terminal.ended("x"))
    assert all(row["train/loss"] or row["val/loss"] for row in found) and len(found) == 4


# the services, where they are installed; none needs a network


def installed(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


@installed("tensorboard")
def test_tensorboard_gets_its_files_in_the_runs_folder(terminal):
    terminal.trains("logger=tensorboard", *QUICK)
    run = terminal.folder / "runs" / "x"
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert sorted(path.name for path in (terminal.folder / "runs").iterdir()) == ["x"]


@installed("mlflow")
def test_mlflow_gets_the_runs_name_and_losses(terminal):
    terminal.trains("logger=mlflow", *QUICK)
    assert sorted(path.name for path in (terminal.folder / "runs").iterdir()) == ["mlflow-artifacts", "mlflow.db", "x"]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{terminal.folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("lmft")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "x" and found.data.metrics["train/loss"] > 0


def as_typed(folder, *overrides, **environment):
    """A training typed on a terminal: its exit code, and what it wrote on stderr."""
    ours, its = pty.openpty()
    words = [sys.executable, "-m", "lmft.train", *tiny_arguments(folder), *overrides]
    given = {**os.environ, "HOME": str(folder), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", **environment}
    for name in ("WANDB_API_KEY", "LMFT_DEBUG"):
        given.pop(name, None)
    ended = subprocess.run(words, stdin=its, stdout=its, stderr=subprocess.PIPE, env=given, cwd=folder, text=True)
    os.close(its)
    os.close(ours)
    return ended.returncode, ended.stderr


@installed("wandb")
def test_wandb_without_a_key_asks_nobody(tmp_path):
    code, said = as_typed(tmp_path, "logger=wandb", *QUICK, WANDB_MODE="online")
    assert code == 2 and "Traceback" not in said
    assert "logger.wandb cannot start: " in said and len(said[said.index("error: ") :].splitlines()) == 3
    assert not (tmp_path / "runs").exists()


@installed("wandb")
def test_wandb_offline_keeps_its_files_in_the_runs_folder(tmp_path):
    code, said = as_typed(tmp_path, "logger=wandb", "logger.wandb.offline=true", *QUICK)
    assert code == 0, said
    assert list((tmp_path / "runs" / "x" / "wandb").glob("offline-run-*/*.wandb"))
    assert [name for name in contents(tmp_path / "runs") if "/wandb/" not in name]
