"""Every optimizer that is shipped: it trains, and resumes bit for bit; weights in groups."""

import pytest
import torch
from safetensors.torch import load_file

from lmft.config.shipped import config_dir
from lmft.errors import UserError
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, rows, tiny, train

OPTIMIZERS = sorted(path.stem for path in config_dir().glob("optimizer/[!_]*.yaml"))
RATES = {"lion": 1e-3, "sgd": 0.5}
OPTIONS = (
    *("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "trainer.log_every_n_steps=1", "model.probes=[]"),
    *(
        "trainer.max_epochs=-1",
        "trainer.max_steps=20",
        "model.config.dim=64",
        "model.config.hidden_dim=128",
        "optimizer.layer_decay=0.8",
    ),
    "scheduler=warmup_stable_decay",
)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_trains_twenty_steps_and_resumes_bit_for_bit(name, folder):
    options = (*OPTIONS, f"optimizer={name}", f"optimizer.lr={RATES.get(name, 5e-3)}")
    whole, expected = train(folder, f"run.name={name}", *options)
    losses = [float(row["train/loss"]) for row in rows(whole) if row["train/loss"]]
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.3
    kill_in_training(folder, 12, f"run.name={name}-killed", *options)
    resumed, result = train(folder, f"run.name={name}-killed", *options)
    assert resumed.checkpoint is not None
    assert_same(resumed, whole)
    assert numbers(result) == numbers(expected)
