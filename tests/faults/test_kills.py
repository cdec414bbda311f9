"""Rows 1 and 2: SIGKILL at any moment, and while a checkpoint is written."""

import os
import random
import signal
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from lmft import durable
from lmft.checkpoint_files import is_valid, newest_valid
from lmft.run_folder import RunFolder
from lmft.training.checkpoint import Checkpoints
from lmft.training.checkpoint_io import read
from tests import causal
from tests.faults.conftest import counting_moments, in_another_process, kill_at
from tests.runs import numbers, tiny_arguments, train
from tests.training.test_resume import assert_same

pytestmark = pytest.mark.timeout(120)

# An epoch is nine micro-batches or more; some are validated after, some saved after, some both.
COMMON = ("trainer.log_every_n_steps=1", "checkpoint.every_n_steps=2", "trainer.val_check_interval=4")
ACCUMULATED = "trainer.accumulate_grad_batches=2"
MODELS = {
    "masked": ("model.config.dropout=0.3", "data.num_workers=2", "data.probes=['the [MASK] fox']"),
    "causal": (*causal.SCRATCH, "model.config.resid_pdrop=0.3", ACCUMULATED),
    "spans": ("model.config.dropout_rate=0.3", ACCUMULATED, "data.num_workers=2"),
    "infilling": ("model.config.dropout=0.3",),
    "permuted": ("model.config.dropout=0.3", "data.num_workers=2"),
}
TINY = {"masked": "distilbert_tiny", "spans": "t5_tiny", "infilling": "bart_tiny", "permuted": "xlnet_tiny"}


def trained(folder, model, name):
    """A training, to its end: the run, and what metrics.json holds."""
    shape = tiny_arguments(folder, TINY[model]) if model in TINY else causal.text_arguments(folder)
    return causal.train(*shape, *COMMON, *MODELS[model], f"run.name={name}")


@pytest.fixture(scope="module")
def undisturbed(folder):
    """By a model: the run that nothing happens to, its metrics, and how many moments it has to be killed at."""

    @cache
    def of(model):
        num_moments = 0

        def count():
            nonlocal num_moments
            num_moments += 1

        run, result = counting_moments(count, trained, folder, model, f"alone-{model}")
        return run, result, num_moments

    return of


def names(run):
    """Of all files of a run."""
    return {str(path.relative_to(run.folder)) for path in run.folder.rglob("*") if path.is_file()}


def assert_a_killed_run_ends_the_same(model, seed, num_kills, undisturbed, folder):
    """Each kill comes somewhere in the next third of a whole run, which begins with reading config and text."""
    run, result, num_moments = undisturbed(model)
    draw, name = random.Random(f"{model}-{seed}"), f"killed-{model}-{seed}"
    moments = [draw.randrange(num_moments // 3) for _ in range(num_kills)]
    print(f"{model}: {seed=} {moments=} of {num_moments}")
    for moment in moments:
        assert kill_at(moment, trained, folder, model, name), "its end came first"
        assert all(map(is_valid, (run.folder.with_name(name) / "checkpoints").glob("*.ckpt")))
    resumed, again = trained(folder, model, name)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)
    assert names(resumed) == names(run)


@pytest.mark.parametrize("model", MODELS)
def test_fault_01_a_run_that_is_killed_at_any_moment_ends_the_same(model, undisturbed, folder):
    assert_a_killed_run_ends_the_same(model, 1, 4, undisturbed, folder)
