"""What the services of experiment tracking have got of a run, read back from what they wrote."""

import json
import os
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from lmft.runs.folder import RunFolder
from lmft.training.metrics_file import TIMES, read_rows
from lmft.training.services.base import Start
from lmft.training.services.trackio import Trackio
from lmft.training.services.wandb_files import histories, last_steps, records
from tests.helpers.closeness import SIX_DIGITS, assert_close
from tests.helpers.resuming import COMMON, cut
from tests.helpers.runs import rows, train

SERVICES = ("tensorboard", "mlflow", "trackio", "wandb")
QUICK = ("trainer.max_steps=2", "validate_before=false", "trainer.log_every_n_steps=1", "checkpoint.keep_last=0")
SECRET = "s3cr3t-0f-the-test"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text, cache and runs; Trackio's folder is one for the whole process."""
    folder = tmp_path_factory.mktemp("records")
    for name in SERVICES:
        pytest.importorskip(name)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["train", f"+hub_token={SECRET}"])


def mlflow_run(run):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run.parent}/mlflow.db")
    return client, client.get_run(record_of(run, "mlflow"))


def record_of(run, name):
    return json.loads(RunFolder(run).loggers.read_text())[f"logger.{name}"]["id"]


def in_tensorboard(run):
    """As TensorBoard's own server reads it, to which numbers and texts are tensors."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    points = {}
    for tag in events.Tags()["tensors"]:
        if tag.startswith("_hparams_"):
            continue
        values = [(event.step, make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        is_text = tag.endswith("/text_summary")
        points[tag.removesuffix("/text_summary")] = [(step, None if is_text else float(v)) for step, v in values]
    return points


def in_mlflow(run):
    client, found = mlflow_run(run)
    points = {
        name: [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, name)]
        for name in found.data.metrics
    }
    for folder in ("probes", "probes/exported"):
        paths = [Path(each.path).stem for each in client.list_artifacts(found.info.run_id, folder) if not each.is_dir]
        points[folder] = sorted((int(path.removeprefix("step=")), None) for path in paths)
    if any(each.path == "report.html" for each in client.list_artifacts(found.info.run_id)):
        points["report"] = [(18, None)]
    return points


def in_trackio(run):
    import trackio

    points = defaultdict(list)
    for row in trackio.SQLiteStorage.get_logs("lmft", run.name, run_id=record_of(run, "trackio")):
        for name in row.keys() - {"step", "timestamp"}:
            points[name].append((row["step"], row[name]))
    return points


def wandb_files(run):
    """The files of a run, once the last is complete: Weights & Biases writes its end after `finish` has returned."""
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    deadline = time.monotonic() + 20
    while "exit" not in {each.WhichOneof("record_type") for each in records(files[-1:])}:
        assert time.monotonic() < deadline, f"no end in {files[-1]}"
        time.sleep(0.05)
    return files


def in_wandb(run):
    points = defaultdict(list)
    for row in histories(wandb_files(run)):
        for name in row.keys() - {"trainer/global_step", "_timestamp", "_runtime", "_step"}:
            points[name].append((row["trainer/global_step"], row[name]))
    return points


READ = {"tensorboard": in_tensorboard, "mlflow": in_mlflow, "trackio": in_trackio, "wandb": in_wandb}


def assert_has_all(found, run):
    """A service has each number of metrics.csv at its step, once."""
    written = read_rows(run.paths.metrics_csv)
    for name in written[0].keys() - {"step", "epoch"}:
        wanted = [(int(row["step"]), float(row[name])) for row in written if row[name]]
        assert [step for step, _ in found[name]] == [step for step, _ in wanted], name
        if name not in TIMES:
            values = [[value for _, value in points] for points in (found[name], wanted)]
            assert_close(values[0], values[1], 2, SIX_DIGITS)
    assert [step for step, _ in found["probes"]] == [0, 9, 18]
    for name in ("probes/exported", "report", "exported/loss"):
        assert [step for step, _ in found[name]] == [18], name


def killed(run, step):
    """Leaves the run as it was when it was killed some time after a step was saved; its record is complete."""
    cut(run, "cut", step)
    shutil.rmtree(run.folder)
    run.folder.with_name("cut").rename(run.folder)


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_run_that_is_resumed_is_one_curve(service, folder):
    options = (*COMMON, f"logger={service}", f"run.name={service}")
    whole, _ = train(folder, *options)
    expected = rows(whole)
    assert_has_all(READ[service](whole.folder), whole)
    record = record_of(whole.folder, service)
    killed(whole, 5)
    again, _ = train(folder, *options)
    assert rows(again) == expected
    assert record_of(whole.folder, service) == record
    assert_has_all(READ[service](whole.folder), whole)


@pytest.mark.parametrize("service", SERVICES)
def test_a_logger_that_comes_later_gets_the_rows_from_before(service, folder):
    options = (*COMMON, f"run.name=late-{service}")
    whole, _ = train(folder, *options)
    killed(whole, 13)
    again, _ = train(folder, *options, f"logger={service}")
    assert_has_all(READ[service](again.folder), again)


def test_several_loggers_at_once_named_after_the_run_with_its_settings(folder):
    run, _ = train(folder, "logger=[tensorboard,mlflow,trackio,wandb]", "run.name=several", "seed=14", *QUICK)
    for service in SERVICES:
        assert [step for step, _ in READ[service](run.folder)["train/loss"]] == [1, 2]
    _, in_store = mlflow_run(run.folder)
    assert in_store.info.run_name == "several" and in_store.info.status == "FINISHED"
    assert in_store.data.params["seed"] == "14"
    begun = [record.run for record in records(wandb_files(run.folder)) if record.WhichOneof("record_type") == "run"]
    assert [each.display_name for each in begun] == ["several"]
    import trackio

    assert trackio.SQLiteStorage.get_run_config("lmft", "several")["seed"] == 14
    assert "seed: 14" in (run.folder / "tensorboard" / "hparams.yaml").read_text()


def test_settings_that_change_on_resume_are_tags_in_mlflow(folder):
    options = ("logger=mlflow", "run.name=longer", *QUICK[1:3])
    train(folder, *options, "trainer.max_steps=1")
    run, _ = train(folder, *options, "trainer.max_steps=2")
    _, found = mlflow_run(run.folder)
    assert found.data.params["trainer/max_steps"] == "1"
    assert found.data.tags["changed/trainer/max_steps"] == "2" and found.info.status == "FINISHED"


def test_no_file_has_a_secret(folder):
    run, _ = train(folder, "logger=[tensorboard,mlflow,trackio,wandb]", "run.name=secret", *QUICK)
    files = [path for path in run.folder.parent.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path


def test_what_weights_and_biases_lost_in_a_kill_is_sent_again(folder):
    """Its process writes a block at a time, so the end of a killed one's file is missing."""
    options = (*COMMON, "logger=wandb", "run.name=lost")
    whole, _ = train(folder, *options)
    (path,) = wandb_files(whole.folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert last_steps([path])["train/loss"] < 18
    killed(whole, 13)
    train(folder, *options)
    assert_has_all(in_wandb(whole.folder), whole)


def test_runs_of_one_process_have_their_own_records(folder):
    for name in ("one", "two"):
        train(folder, "logger=wandb", f"run.name={name}", *QUICK)
    ids = [record_of(folder / "runs" / name, "wandb") for name in ("one", "two")]
    assert ids[0] != ids[1]


def test_trackios_folder_is_beside_the_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", "")  # so that what the service sets is forgotten after the test
    monkeypatch.delenv("TRACKIO_DIR")
    start = Start(folder=tmp_path / "runs" / "one", runs=tmp_path / "runs", name="one", step=-1)
    Trackio().options(start, {})
    assert Path(os.environ["TRACKIO_DIR"]) == (tmp_path / "runs" / "trackio").resolve()
