"""Averaged weights: which steps count, what is validated and exported, and whether resuming is exact."""

import signal

import pytest
import torch
from safetensors.torch import load_file

from lmft.errors import UserError
from lmft.runs.checkpoint_io import read
from lmft.system import signals
from lmft.system.signals import Stopped
from lmft.training.callbacks.averaging import AveragedWeights
from tests.helpers.causal import chat_arguments
from tests.helpers.causal import train as train_causal
from tests.helpers.resuming import COMMON, assert_same, cut
from tests.helpers.runs import numbers, train

EMA = ("callbacks=ema", "callbacks.ema.decay=0.9", "optimizer.lr=1e-2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("averages")


@pytest.fixture(scope="module")
def whole(folder):
    options = (*COMMON, *EMA, "trainer.val_check_interval=5")
    return *train(folder, "run.name=whole-averaged", *options), options


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


def trained(run, step, state="current_model_state"):
    saved = read(run.paths.checkpoints / f"step={step}.ckpt")[state]
    return {name.removeprefix("model."): value for name, value in saved.items()}


def averaged(run, steps, decays):
    """The average as its definition says, from the weights of each step."""
    average = {name: value.double() for name, value in trained(run, steps[0]).items()}
    for step, decay in zip(steps[1:], decays, strict=True):
        for name, value in trained(run, step).items():
            average[name] = decay * average[name] + (1 - decay) * value.double()
    return average


def assert_near(found, expected):
    for name, value in found.items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-7)


def test_the_average_is_that_of_its_definition(whole):
    run, _, _ = whole
    decays = [min(0.9, (1 + n) / (10 + n)) for n in range(1, 18)]
    assert_near(trained(run, 18, "state_dict"), averaged(run, range(1, 19), decays))


def test_the_exported_weights_and_scores_are_the_averages(whole):
    run, result, _ = whole
    step = result["exported"]["step"]
    average = trained(run, step, "state_dict")
    assert all(torch.equal(average[name], weight) for name, weight in weights_of(run).items())
    assert not all(torch.equal(trained(run, step)[name], weight) for name, weight in weights_of(run).items())


@pytest.mark.parametrize("step", [7, 9, 10])
def test_a_killed_run_has_the_same_average_bit_for_bit(whole, folder, step):
    run, result, options = whole
    cut(run, f"from-{step}", step)
    resumed, again = train(folder, f"run.name=from-{step}", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)
    last, wanted = (read(each.paths.checkpoints / "last.ckpt") for each in (resumed, run))
    for name in ("state_dict", "current_model_state", "averaging_state"):
        torch.testing.assert_close(last[name], wanted[name], rtol=0, atol=0)


def test_a_run_stopped_within_a_validation_has_the_same_average(whole, folder, monkeypatch):
    run, result, options = whole
    validate = AveragedWeights.on_validation_epoch_start

    def stop(self, trainer, pl_module):
        validate(self, trainer, pl_module)
        if trainer.global_step == 14:
            signals.record_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(AveragedWeights, "on_validation_epoch_start", stop)
        with pytest.raises(Stopped), signals.handling_signals():
            train(folder, "run.name=stopped", *options)
    resumed, again = train(folder, "run.name=stopped", *options)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)


def test_a_plain_mean_of_some_steps(folder):
    options = ("callbacks=weight_average", "callbacks.weight_average.update_every_n_steps=3")
    start = "callbacks.weight_average.update_starting_at_step=6"
    run, _ = train(folder, "run.name=mean", *COMMON, *options, start, "model.export=last", "optimizer.lr=1e-2")
    states = [trained(run, step) for step in (9, 12, 15, 18)]
    mean = {name: sum(state[name].double() for state in states) / 4 for name in states[0]}
    assert_near(weights_of(run), mean)


def test_until_the_first_step_that_counts_the_weights_are_used_as_they_are(folder):
    late = ("callbacks=ema", "callbacks.ema.update_starting_at_step=12", "trainer.val_check_interval=5")
    _, result = train(folder, "run.name=late", *late, *COMMON)
    _, plain = train(folder, "run.name=plain", "trainer.val_check_interval=5", *COMMON)
    assert result["before"] == plain["before"]
    early = [row.split(",") for row in (folder / "runs/late/metrics.csv").read_text().splitlines()[:6]]
    others = [row.split(",") for row in (folder / "runs/plain/metrics.csv").read_text().splitlines()[:6]]
    assert [row[:6] for row in early] == [row[:6] for row in others]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["callbacks.ema.update_starting_at_step=18"], "the first average would be that of step 19"),
        (["callbacks.ema.decay=1"], "must be a share between 0 and 1"),
        (["callbacks.ema.update_every_n_steps=0"], "a number from 1"),
        (["trainer.precision=bf16-true"], "an average of weights in bfloat16 would not move"),
    ],
)
def test_an_average_that_would_be_none_is_refused(folder, options, said):
    with pytest.raises(UserError, match=said):
        train(folder, "run.name=refused", "callbacks=ema", *options)
    assert not (folder / "runs" / "refused" / "model").exists()


@pytest.mark.parametrize("name", ["WeightAveraging", "EMAWeightAveraging"])
def test_lightnings_own_is_refused_with_ours(folder, name):
    with pytest.raises(UserError, match="does not work in lmft") as refused:
        train(folder, "run.name=theirs", f"+callbacks.x._target_=lightning.pytorch.callbacks.{name}")
    assert "callbacks=ema" in str(refused.value)


def test_adapters_are_averaged_and_their_base_is_neither_changed_nor_saved(tmp_path):
    common = (*chat_arguments(tmp_path), "model.lora.r=2", "model.lora.merge=false", "checkpoint.keep_last=-1")
    options = (*common, "callbacks=ema", "checkpoint.every_n_steps=1", "model.export=last")
    run, result = train_causal(*options, "run.name=adapters")
    last = read(run.paths.checkpoints / "last.ckpt")
    assert last["current_model_state"].keys() == last["state_dict"].keys()
    assert all("lora" in name or "token_adapter" in name for name in last["state_dict"])
    step = max(1, result["steps"] // 2)
    cut(run, "cut", step)
    resumed, again = train_causal(*options, "run.name=cut")
    weights, others = (load_file(each.paths.model / "adapter_model.safetensors") for each in (resumed, run))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert numbers(again) == numbers(result)


def test_a_run_that_goes_on_without_averaging_goes_on_with_its_own_weights(whole, folder):
    run, _, options = whole
    cut(run, "without", 10)
    without = [option for option in options if "callbacks" not in option]
    resumed, _ = train(folder, "run.name=without", *without)
    last = read(resumed.paths.checkpoints / "last.ckpt")["state_dict"]
    assert all(torch.equal(last[f"model.{name}"], value) for name, value in trained(run, 18).items())
