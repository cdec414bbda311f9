"""Trainings in which the rate of the noise changes."""

import pytest
import torch
from lightning import Trainer
from safetensors.torch import load_file

from lmft.assembly import assemble
from lmft.errors import UserError
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import COMMON, assert_same
from tests.helpers.runs import numbers, rows, tiny, train

CHANGING = "objective.mlm_probability={0: 0.6, 0.5: 0.1}"


def num_targets(folder, *options):
    parts = assemble(tiny(folder, *options))
    data = parts.datamodule()
    return [data.batch([0, 1, 2, 3], share=share).num_targets for share in (0.0, 0.49, 0.5, 1.0)]


def test_batches_hide_the_share_of_their_time(folder):
    first, before, after, last = num_targets(folder, CHANGING)
    assert first == before > 2 * after and after == last


def test_a_killed_run_goes_on_with_the_rate_of_its_step(folder):
    options = (*COMMON, CHANGING, "trainer.max_steps=12", "trainer.log_every_n_steps=1", "data.num_workers=2")
    whole, expected = train(folder, "run.name=changing", *options)
    kill_in_training(folder, 7, "run.name=changing-killed", *options)
    resumed, result = train(folder, "run.name=changing-killed", *options)
    assert resumed.checkpoint is not None
    assert_same(resumed, whole)
    assert numbers(result) == numbers(expected)


def test_before_its_change_it_is_the_run_without_one(folder):
    options = (*COMMON, "trainer.max_steps=8", "trainer.log_every_n_steps=1")
    changing, _ = train(folder, "run.name=stages", CHANGING, *options)
    constant, _ = train(folder, "run.name=no-stages", "objective.mlm_probability=0.6", *options)
    losses = [[row["train/loss"] for row in rows(run) if row["train/loss"]] for run in (changing, constant)]
    assert losses[0][:4] == losses[1][:4] and losses[0][4] != losses[1][4]
    weights = [load_file(run.paths.model / "model.safetensors") for run in (changing, constant)]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    said = "objective.mlm_probability: 0.6 from 0 of the steps, 0.1 from 0.5 of the steps"
    assert said in changing.paths.log.read_text()


def test_a_trainer_that_time_alone_ends_has_no_steps_to_change_by(folder):
    parts = assemble(tiny(folder, CHANGING))
    trainer = Trainer(max_time="00:00:01:00", accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match="no number of steps is set"):
        trainer.fit(parts.module(), parts.datamodule())
