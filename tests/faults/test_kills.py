"""Rows 1 and 2: SIGKILL at any moment, and while a checkpoint is written."""

import io
import os
import random
import signal
from functools import cache, partial
from pathlib import Path

import pytest
import torch

from lmft import durable
from lmft.checkpoint_files import checkpoints_by_step, is_valid, newest_valid
from lmft.run_folder import RunFolder
from lmft.training.checkpoint import Checkpoints
from tests import causal, runs
from tests.faults.conftest import counting_moments, in_another_process, kill_at
from tests.runs import numbers, tiny_arguments, train
from tests.training.test_resume import assert_same

pytestmark = pytest.mark.timeout(120)

COMMON = ("trainer.log_every_n_steps=1", "checkpoint.every_n_steps=2", "trainer.val_check_interval=4")
ACCUMULATED = "trainer.accumulate_grad_batches=2"
WAYS = {
    "masked": ("distilbert_tiny", "model.config.dropout=0.3", "data.num_workers=2", "data.probes=['the [MASK] fox']"),
    "causal": ("gpt2_tiny", ACCUMULATED, "data.num_workers=2"),
    "spans": ("t5_tiny", "model.config.dropout_rate=0.3"),
    "infilling": ("bart_tiny", "model.config.dropout=0.3", ACCUMULATED),
    "permuted": ("xlnet_tiny", "model.config.dropout=0.3"),
}


def trained(folder, way, name):
    model, *options = WAYS[way]
    own = causal.SCRATCH if model == "gpt2_tiny" else ()
    arguments = [*tiny_arguments(folder, *([] if own else [model]))]
    if own:
        arguments = [*causal.text_arguments(folder), *own]
    return causal.train(*arguments, *COMMON, *options, f"run.name={name}")
