"""Branches: new runs that begin where another run was."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lmft.errors import UserError
from tests.helpers.faults import signals  # noqa: F401
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, rows, train

OPTIONS = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "trainer.log_every_n_steps=1", "model.probes=[]")


@pytest.fixture(scope="module")
def parent(folder):
    """A run of one epoch, nine steps, at a constant rate."""
    run, _ = train(folder, "run.name=parent", *OPTIONS, "scheduler=constant_with_warmup", "trainer.max_steps=5")
    return run


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


def test_a_branch_trains_as_its_parent_would_have(parent, folder):
    constant = (*OPTIONS, "scheduler=constant_with_warmup")
    whole, _ = train(folder, "run.name=whole", *constant, "scheduler.warmup=1", "trainer.max_steps=12")
    first, _ = train(folder, "run.name=first", *constant, "scheduler.warmup=1", "trainer.max_steps=5")
    branch = ("run.name=second", f"resume={first.folder}", "branch=true")
    second, result = train(folder, *branch, *constant, "scheduler.warmup=0", "trainer.max_steps=7")
    found, expected = weights_of(second), weights_of(whole)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    losses = [row["train/loss"] for row in rows(whole) if row["train/loss"]]
    assert [row["train/loss"] for row in rows(second) if row["train/loss"]] == losses[5:]
    assert result["steps"] == 7 and result["parent"]["step"] == 5 and result["parent"]["name"] == "first"
