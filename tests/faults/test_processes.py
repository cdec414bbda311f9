"""Rows 9 and 1 with two processes: what is trained, and what is measured, does not depend on how many there are."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from lmft.runs.folder import RunFolder
from lmft.training.metrics_file import read_rows
from tests.helpers.closeness import SIX_DIGITS, assert_close, assert_same_scores
from tests.helpers.runs import model_arguments, start, write_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

COMMON = (
    *("data=files", "data.train=text.txt", "data.validation_fraction=0.2", "data.block_size=32"),
    *("trainer.max_epochs=2", "trainer.precision=32-true", "trainer.log_every_n_steps=1"),
    *("trainer.gradient_clip_val=null", "trainer.accelerator=cpu"),
    *("optimizer=sgd", "optimizer.lr=1.0", "optimizer.momentum=0.0", "scheduler=constant_with_warmup"),
    *("scheduler.warmup=0", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1"),
    *model_arguments("distilbert_tiny"),
    *("model.config.dropout=0.0", "model.config.attention_dropout=0.0"),
)
ONE = ("data.batch_size=4",)
TWO = ("trainer=ddp", "trainer.devices=2", "data.batch_size=2")
ACCUMULATED = ("data.batch_size=2", "trainer.accumulate_grad_batches=2")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_text(folder / "text.txt")
    return folder


def trained(home, name, *options):
    process = start(home, "lmft.train", f"run.name={name}", *options, *COMMON)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return RunFolder(home / "runs" / name)


@pytest.fixture(scope="module")
def one(home):
    return trained(home, "one", *ONE)


@pytest.fixture(scope="module")
def two(home):
    return trained(home, "two", *TWO)


def weights(run, step):
    return torch.load(run.checkpoints / f"step={step}.ckpt", weights_only=True)["state_dict"]


def exported(run):
    return load_file(run.model / "model.safetensors")


def cut(run, name, step):
    """The run's folder as it was when its processes were killed behind a step, under another name."""
    copy = RunFolder(run.path.with_name(name))
    shutil.copytree(run.path, copy.path, ignore=shutil.ignore_patterns("last.ckpt*", "metrics.json", "model"))
    for path in copy.checkpoints.glob("step=*"):
        if int(path.name.removeprefix("step=").partition(".")[0]) > step:
            path.unlink()
    return copy.path.name


def assert_alike(run, expected):
    """Same steps; weights, losses and scores equal to rounding."""
    found, wanted = (json.loads(each.metrics.read_text()) for each in (run, expected))
    for stage in ("before", "after"):
        assert_same_scores(found[stage], wanted[stage])
    for count in ("tokens", "targets"):
        assert found["train"][count] == wanted["train"][count]
    assert_close(exported(run), exported(expected))
    rows, others = (read_rows(each.metrics_csv) for each in (run, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    losses, others = ([float(row["train/loss"]) for row in each if row["train/loss"]] for each in (rows, others))
    assert_close(losses, others, 2, SIX_DIGITS)


def test_two_processes_are_one(one, two):
    """With plain SGD at a rate of 1 the first step's change is the gradient. Both texts end in a tail."""
    assert_close(weights(two, 1), weights(one, 1))
    assert_alike(two, one)


@pytest.mark.parametrize("step", [5, 9], ids=["amid an epoch", "at its end"])
@pytest.mark.parametrize("options", [ONE, ACCUMULATED], ids=["larger batches", "accumulated"])
def test_fault_09_one_process_resumes_a_run_of_two(options, step, home, two):
    name = cut(two, f"two-to-one-{len(options)}-{step}", step)
    assert_alike(trained(home, name, *options), two)


def test_fault_09_two_processes_resume_a_run_of_one(home, one):
    assert_alike(trained(home, cut(one, "one-to-two", 5), *TWO), one)


def test_fault_09_other_steps_are_refused(home, one):
    name = cut(one, "other-steps", 5)
    process = start(home, "lmft.train", f"run.name={name}", *COMMON, "data.batch_size=8")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "an optimizer step has 8 examples, in the checkpoint 4" in err and "Traceback" not in err


def test_fault_01_two_killed_processes_resume_bit_for_bit(home, two):
    resumed = exported(trained(home, cut(two, "two-again", 5), *TWO))
    assert all(torch.equal(resumed[name], weight) for name, weight in exported(two).items())


def test_each_job_of_a_sweep_starts_processes_of_its_own(home, two):
    options = ("-m", "seed=1,2", "run.name=swept")
    process = start(home, "lmft.train", *options, *TWO, *COMMON)
    shown, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    first = RunFolder(home / "runs" / "swept" / "seed=1")
    alone = exported(two)
    assert all(torch.equal(weight, alone[name]) for name, weight in exported(first).items())
    assert "[2/2]" in shown and "documents" not in shown  # of a job one line is shown, by its first process
