"""A killed run continues as if nothing had been: all it leaves is that of the run left alone."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lmft.modules.base import LanguageModel
from lmft.runs.folder import RunFolder
from tests.helpers.resuming import COMMON, assert_same, cut
from tests.helpers.runs import numbers, rows, train

# An epoch is nine micro-batches of four blocks.
WAYS = {
    "plain": ("trainer.val_check_interval=5",),
    "accumulated": ("trainer.accumulate_grad_batches=2", "trainer.val_check_interval=4"),
    "workers": ("trainer.accumulate_grad_batches=2", "data.num_workers=2"),
    "lines": ("data.examples=lines", "objective=whole_word", "trainer.max_steps=20"),
}


@pytest.fixture(
    scope="module",
    params=["plain", "lines", *(pytest.param(way, marks=pytest.mark.slow) for way in ("accumulated", "workers"))],
)
def whole(request, folder):
    """A run left alone, its metrics, and its options."""
    options = (*COMMON, *WAYS[request.param])
    run, result = train(folder, f"run.name=whole-{request.param}", *options)
    return run, result, options


def steps_to_try(run):
    """In the middle of the first epoch, at its end, and one before the end of all."""
    saved = sorted(int(path.stem.removeprefix("step=")) for path in run.paths.checkpoints.glob("step=*.ckpt"))
    half = len(saved) // 2
    return [saved[half // 2], saved[half - 1], saved[-2]]


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(0, id="mid-epoch"),
        pytest.param(1, id="epoch-end"),
        pytest.param(2, id="late", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_bit_exactly(whole, place, folder):
    run, result, options = whole
    step = steps_to_try(run)[place]
    name = f"{run.name}-from-{step}"
    cut(run, name, step)
    resumed, again = train(folder, f"run.name={name}", *options)
    assert f"resuming from {resumed.checkpoint}" in resumed.paths.log.read_text()
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


@pytest.mark.parametrize("step", [9, pytest.param(18, marks=pytest.mark.slow)])
def test_from_the_last_step_of_an_epoch(step, folder):
    """Where the checkpoint is due at the step that a validation follows, the validation is in it."""
    options = (*COMMON, "checkpoint.every_n_steps=9")
    name = f"epoch-end-{step}"
    run, result = train(folder, f"run.name={name}", *options)
    cut(run, f"{name}-cut", step)
    resumed, again = train(folder, f"run.name={name}-cut", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


@pytest.mark.slow
def test_killed_again_and_again(folder, monkeypatch):
    """Three deaths in the middle of steps, two of them in one epoch, then the end."""
    options = (*COMMON, "trainer.accumulate_grad_batches=2", "checkpoint.every_n_steps=2")
    run, result = train(folder, "run.name=undisturbed", *options)
    train_on = LanguageModel.training_step
    for victim in (5, 8, 15):

        def dies(self, batch, batch_idx, victim=victim):
            if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready == victim:
                raise RuntimeError("killed")
            return train_on(self, batch, batch_idx)

        with monkeypatch.context() as patched:
            patched.setattr(LanguageModel, "training_step", dies)
            with pytest.raises(RuntimeError, match="killed"):
                train(folder, "run.name=disturbed", *options)
        paths = RunFolder(folder / "runs" / "disturbed")
        assert paths.status() == "failed" and not paths.model.exists()
    resumed, again = train(folder, "run.name=disturbed", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


def test_an_attempt_without_a_checkpoint_leaves_no_trace(folder, monkeypatch):
    options = (*COMMON, "checkpoint.every_n_steps=100", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
    run, _ = train(folder, "run.name=at-once", *options)
    train_on = LanguageModel.training_step

    def dies(self, batch, batch_idx):
        if batch_idx == 4:
            raise RuntimeError("killed")
        return train_on(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "training_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(folder, "run.name=anew", *options)
    assert len((folder / "runs" / "anew" / "metrics.csv").read_text().splitlines()) > 3
    again, _ = train(folder, "run.name=anew", *options)
    assert again.checkpoint is None
    assert_same(again, run)


def test_a_new_run_from_another_ones_checkpoint(folder):
    run, result = train(folder, "run.name=first", *COMMON)
    checkpoint = run.paths.checkpoints / "step=5.ckpt"
    branch, again = train(folder, "run.name=branch", f"resume={checkpoint}", *COMMON)
    assert branch.checkpoint == checkpoint
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (branch, run))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert rows(branch) == [row for row in rows(run) if int(row["step"]) > 5]
    assert numbers(again) == numbers(result)
    samples = [json.loads(line) for line in branch.paths.samples.read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [9, 18, 18]


def test_dropout_is_on_and_repeats(folder):
    """Otherwise these tests would prove less than they say."""
    runs = [
        train(folder, f"run.name=dropout-{name}", "trainer.max_steps=3", *options)[0]
        for name, options in {
            "a": COMMON,
            "b": COMMON,
            "none": (*COMMON, "model.config.dropout=0.0", "model.config.attention_dropout=0.0"),
        }.items()
    ]
    first, same, without = (load_file(run.paths.model / "model.safetensors") for run in runs)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], without[name]) for name in first)
