"""The commands as a user types them: processes of their own, in a folder of their own."""

import json
import os
import pty
import re

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForMaskedLM, pipeline

from lmft.breakdown.measurement import Measurement
from lmft.runs.folder import RunFolder
from tests.helpers.closeness import SIX_DIGITS, assert_close, assert_same_scores
from tests.helpers.forked import Forked, ended
from tests.helpers.runs import model_arguments, start, write_text

CPU = ("trainer=cpu", "trainer.precision=32-true")
OPTIONS = (
    "data=files",
    "data.train=text.txt",
    "data.validation_fraction=0.2",
    "data.block_size=32",
    "data.batch_size=4",
    "data.probes=['the [MASK] fox']",
    *CPU,
    "trainer.max_steps=6",
    "trainer.log_every_n_steps=2",
    *model_arguments("distilbert_tiny"),
)
SCORES = {"loss", "perplexity", "accuracy", "bits_per_byte", "targets"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The folder where the commands are typed."""
    folder = tmp_path_factory.mktemp("home")
    write_text(folder / "text.txt")
    return folder


@pytest.fixture(scope="module")
def trained(home):
    """What the command printed, and the folder of its run."""
    process = start(home, "lmft.train", "run.dir=runs", "run.name=first", *OPTIONS)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, RunFolder(home / "runs" / "first")


def test_the_terminal_shows_config_text_probes_and_scores(trained):
    out, _ = trained
    for said in ("n_layers=1", "tokens in examples", "step 6/6", "the [MASK] fox", "perplexity", "the model is in"):
        assert said in out, said


VOCABULARY = ("tokenizer.json", "tokenizer.json.xxh3", "tokenizer_config.json", "survival.json")


def test_a_run_leaves_the_documented_files(trained):
    _, run = trained
    names = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()} - {".lock"}
    checkpoints = {f"checkpoints/{name}.ckpt{end}" for name in ("step=6", "last", "best") for end in ("", ".xxh3")}
    model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"}
    model.add("training_curve.svg")
    top = {"config.yaml", "command.txt", "train.log", "metrics.csv", "metrics.json", "samples.jsonl", "report.html"}
    top |= {"setup.json", "example.json", "facts.json"}
    tokenizer = {f"tokenizer/{name}" for name in VOCABULARY}
    measured = {"details.json", *(f"measurements/{name}.npz" for name in ("before", "best", "last"))}
    assert names == {*top, *measured, *checkpoints, *tokenizer, *(f"model/{name}" for name in model)}
    assert yaml.safe_load(run.config.read_text())["trainer"]["max_steps"] == 6
    assert "python -m lmft.train" in run.command.read_text() and "run.name=first" in run.command.read_text()
    assert "step 6/6" in run.log.read_text()
    stages = [json.loads(line)["stage"] for line in run.samples.read_text().splitlines()]
    assert stages == ["before", "validation", "after"]


def without_speeds(log):
    """A log's lines without times, speeds and the run's folder, which differ from run to run."""
    lines = [re.sub(r"^\d{4}-\d\d-\d\d [\d:,]+ ", "", line) for line in log.read_text().splitlines()]
    times = r"[\d,.:]+ (tokens/s|bytes/s|left|GB)|(in|took) \d+:\d\d| \d+:\d\d(?= (INFO|WARNING))"
    differing = rf"{times}|run\.dir=\S+|(runs|drawn)/first|drawn|runs"
    return " ".join(re.sub(differing, "", " ".join(lines)).split())


def test_the_log_holds_what_was_shown(trained):
    out, run = trained
    logged = run.log.read_text().splitlines()
    lines = [line.removeprefix("  ! ") for line in out.splitlines() if line != "warning"]
    assert [line for line in lines if not any(each.endswith(line) for each in logged)] == []
    assert any("tokenising" in line for line in logged) and "text" in logged and "  data=files" in run.log.read_text()


def test_the_log_is_the_same_where_a_bar_was_drawn(trained, home, monkeypatch):
    """Also what was tokenised and warned of before there was a file to write to."""
    _, first = trained
    terminal, its_end = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    (home / "cache").rename(home / "cache-of-first")
    process = Forked(home, "train", ["run.dir=drawn", "run.name=first", *OPTIONS], output=its_end)
    os.close(its_end)
    shown = read_terminal(terminal)
    assert process.wait() == 0, shown
    assert "━" in shown and "step 5/6" not in shown
    assert without_speeds(RunFolder(home / "drawn" / "first").log) == without_speeds(first.log)


def read_terminal(terminal):
    """All that a process writes on its terminal."""
    parts = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the process has gone
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)


def test_without_validation_there_is_no_table_of_scores(home):
    code, out, err = ended(home, "train", "run.dir=unvalidated", *OPTIONS, "data.validation_fraction=0")
    assert code == 0, err
    assert "scores on the validation text" not in out and "complete: 6 optimizer steps" in out


def test_metrics_json_holds_scores_counts_and_environment(trained):
    _, run = trained
    metrics = json.loads(run.metrics.read_text())
    stages = ("before", "after", "best", "exported")
    assert list(metrics) == ["status", "steps", "epochs", *stages, "train", "data", "environment", "facts"]
    assert (metrics["status"], metrics["steps"]) == ("complete", 6) and 0 < metrics["epochs"] < 1
    assert all(metrics[stage].keys() >= SCORES for stage in stages)
    assert metrics["exported"]["step"] == metrics["best"]["step"] == 6
    assert metrics["after"]["loss"] < metrics["before"]["loss"]
    assert {"tokens", "targets", "seconds", "tokens_per_second", "peak_memory_gb"} <= metrics["train"].keys()
    assert 0 < metrics["train"]["peak_memory_gb"] < 8 and metrics["train"]["tokens"] > metrics["train"]["targets"] > 0
    assert set(metrics["data"]) == {"train", "validation"}
    for split in metrics["data"].values():
        kept = split["tokens_in_examples"] + split["tokens_dropped"]
        assert split["tokens"] + split["tokens_repeated"] == kept > 0
    assert {"torch", "transformers", "lightning", "python", "device"} <= metrics["environment"].keys()


def test_the_model_is_a_plain_hugging_face_folder(trained):
    _, run = trained
    fill = pipeline("fill-mask", model=str(run.model))
    answers = fill("the [MASK] fox")
    last = json.loads(run.samples.read_text().splitlines()[-1])["fills"][0]
    assert_close([fill["probability"] for fill in last], [answer["score"] for answer in answers])
    model = AutoModelForMaskedLM.from_pretrained(run.model)
    assert model.config.n_layers == 1 and {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert "library_name: transformers" in (run.model / "README.md").read_text()


def test_evaluating_a_run_writes_and_shows_its_own_scores(home, trained):
    _, run = trained
    code, out, err = ended(home, "evaluate", "run=runs/first", *CPU, "output=scores.json")
    assert code == 0, err
    metrics, scores = json.loads(run.metrics.read_text()), json.loads((home / "scores.json").read_text())["validation"]
    assert_same_scores(scores, metrics["after"])
    assert f"{scores['loss']:.4f}" in out


def test_predicting_shows_the_answers_of_the_run(home, trained):
    _, run = trained
    code, out, err = ended(home, "predict", "run=runs/first", "text=the [MASK] fox")
    assert code == 0, err
    best = json.loads(run.samples.read_text().splitlines()[-1])["fills"][0][0]
    assert re.search(rf"{re.escape(best['token'])} +{best['probability']:.1%}", out)


def test_a_mistake_is_said_in_three_lines_and_leaves_no_run(home, trained):
    runs = sorted((home / "runs").iterdir())
    code, _, err = ended(home, "train", "run.name=second", *OPTIONS, "data.train=txet.txt")
    lines = err.splitlines()
    assert code == 2 and len(lines) <= 3 and lines[0].startswith("error: no such file or folder: txet.txt"), err
    assert "did you mean 'text.txt'?" in lines[0]
    assert sorted((home / "runs").iterdir()) == runs


@pytest.mark.slow
def test_two_devices_train_as_one(home):
    """Two processes with batches of two are one with batches of four: losses, counts, files."""
    sgd = [
        "optimizer=sgd",
        "optimizer.lr=0.1",
    ]  # Adam would make much of the rounding of gradients that are next to none
    common = [*OPTIONS, *sgd, "trainer.max_epochs=1", "trainer.max_steps=-1"]
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]
    results = []
    for name, options in (("one", []), ("two", two)):
        process = start(home, "lmft.train", f"run.name={name}", *common, *options)
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        run = RunFolder(home / "runs" / name)
        results.append((json.loads(run.metrics.read_text()), run.metrics_csv.read_text().splitlines(), run))
    (one, rows_of_one, _), (both, rows_of_two, run) = results
    for stage in ("before", "after"):
        assert_same_scores(both[stage], one[stage])
    for count in ("tokens", "targets"):
        assert both["train"][count] == one["train"][count]
    assert len(rows_of_two) == len(rows_of_one)
    losses = [
        [float(loss) for _, _, loss, *_ in (row.split(",") for row in rows[1:]) if loss]
        for rows in (rows_of_one, rows_of_two)
    ]
    assert_close(losses[1], losses[0], 2, SIX_DIGITS)
    sums = [Measurement.load(home / "runs" / name / "measurements" / "before.npz").texts[""] for name in ("one", "two")]
    for way in ("document", "token", "class", "position"):
        targets = [each.arrays[f"{way}_targets"] for each in sums]
        np.testing.assert_array_equal(*targets)
        assert targets[0].sum() == one["before"]["targets"]
        assert_close(*(torch.from_numpy(each.arrays[f"{way}_nats"]) for each in sums))
    assert len(run.samples.read_text().splitlines()) == 3
