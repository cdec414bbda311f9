"""16-mixed: steps that the scaler of float16 leaves out are counted, and do not end as if they had trained."""

import json
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from lmft.errors import UserError
from lmft.training.nonfinite import Overflows
from lmft.training.trainer import build_trainer
from tests.helpers.runs import numbers, rows, train

COMMON = (
    *("trainer.max_steps=8", "trainer.log_every_n_steps=1", "scheduler.warmup=0"),
    *("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1"),
)


def in_float16(monkeypatch, **options):
    """From now on trainings compute in 16-mixed on the CPU, where Lightning would not."""

    def built(*arguments):
        trainer = build_trainer(*arguments)
        scaler = torch.amp.GradScaler("cpu", **options)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return trainer

    monkeypatch.setattr("lmft.assembly.training.build_trainer", built)


def rates(run):
    return [float(row["lr"]) for row in rows(run) if row["lr"]]


def test_without_overflows_all_steps_are_those_of_float32(folder, monkeypatch):
    run, result = train(folder, "run.name=float32", *COMMON)
    in_float16(monkeypatch, init_scale=2.0**10)
    half, again = train(folder, "run.name=float16", *COMMON)
    assert again["train"]["steps_skipped"] == 0 and result["train"]["steps_skipped"] == 0
    assert rates(half) == rates(run)
    for found, wanted in zip(rows(half), rows(run), strict=True):
        assert float(found["train/loss"] or 0) == pytest.approx(float(wanted["train/loss"] or 0), rel=1e-2)


def test_overflows_are_counted_and_do_not_move_the_schedule(folder, monkeypatch, capsys):
    in_float16(monkeypatch, init_scale=2.0**21)  # some halvings too large
    run, result = train(folder, "run.name=overflowed", *COMMON, "trainer.gradient_clip_val=null")
    skipped = result["train"]["steps_skipped"]
    assert 0 < skipped < 8
    assert f"{skipped} of them changed no weights" in capsys.readouterr().out
    assert run.paths.log.read_text().count("overflows float16") == skipped
    states = [torch.load(run.paths.checkpoints / f"step={n}.ckpt", weights_only=True) for n in range(1, 9)]
    totals = [state["steps"]["overflows"]["total"] for state in states]
    assert totals[-1] == skipped
    for number, (before, state) in enumerate(pairwise(states), start=2):
        is_same = all(
            torch.equal(before["state_dict"][name], state["state_dict"][name]) for name in state["state_dict"]
        )
        assert is_same == (totals[number - 1] > totals[number - 2])
        assert state["lr_schedulers"][0]["last_epoch"] == number - totals[number - 1]
    options = (*COMMON, "trainer.gradient_clip_val=null")
    _, second = train(folder, "run.name=overflowed-on", f"resume={run.paths.checkpoints}/step=2.ckpt", *options)
    assert numbers(second) == numbers(result)


def test_a_run_that_always_overflows_ends_as_a_fault(folder, monkeypatch):
    in_float16(monkeypatch, init_scale=2.0**40)
    with pytest.raises(UserError, match="all 8 steps overflowed float16") as error:
        train(folder, "run.name=hopeless-scale", *COMMON)
    assert "bf16-mixed" in str(error.value)
    assert json.loads((folder / "runs/hopeless-scale/metrics.json").read_text())["status"] == "failed"


def test_a_scale_below_one_ends_a_training_that_always_overflows():
    overflows = Overflows()
    count = partial(overflows.count, True)
    for step in range(1, 20):
        count(step, lambda: 0.1)
    with pytest.raises(UserError, match="step 20: the gradient overflows float16"):
        count(20, lambda: 0.1)
    overflows.count(False, 21, lambda: 0.1)
    assert not overflows.is_latest and overflows.total == 20
