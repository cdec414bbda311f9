"""What is refused where devices share the weights, before the text is read."""

import pytest

from lmft.errors import UserError
from lmft.training import sharded_options
from lmft.training.trainer import build_trainer
from tests.helpers.runs import tiny

SHARDED = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2")
AVERAGES = "lightning.pytorch.callbacks"


def refusal(config, trainer):
    with pytest.raises(UserError) as error:
        sharded_options.check_sharded(config, trainer)
    said = str(error.value)
    assert len(said.splitlines()) <= 3 and "trainer=fsdp2" in said
    return said


@pytest.fixture(scope="module")
def trainer(folder):
    config = tiny(folder, *SHARDED)
    trainer = build_trainer(config, None, [], [])
    sharded_options.check_sharded(config, trainer)  # as it is shipped, it is not refused
    return trainer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("+trainer.inference_mode=true",), "leave it out"),
        (("optimizer=adamw_8bit",), "optimizer=adamw, lion, muon or sgd"),
        (("optimizer=adafactor", "optimizer.lr=1e-3"), "whole weights"),
        (("callbacks=ema",), "callbacks.ema=null, or trainer=ddp"),
        (("callbacks=weight_average",), "second copy of the model"),
        ((f"+callbacks.x._target_={AVERAGES}.StochasticWeightAveraging",), "second copy of the model"),
        ((f"+callbacks.x._target_={AVERAGES}.ModelPruning",), "masks"),
        (("model.compile=true",), "model.compile=false"),
    ],
)
def test_what_would_be_wrong_is_refused(folder, trainer, options, said):
    assert said in refusal(tiny(folder, *SHARDED, *options), trainer)


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_float16_is_refused(folder, precision):
    config = tiny(folder, *SHARDED, f"trainer.precision={precision}")
    with pytest.raises(UserError) as error:
        sharded_options.check_precision(config)
    assert "trainer.precision=bf16-mixed, or 32-true" in str(error.value)
    sharded_options.check_precision(tiny(folder, *SHARDED))
    sharded_options.check_precision(tiny(folder, f"trainer.precision={precision}"))


@pytest.mark.parametrize("option", ["reduce_each_micro_batch", "gather_in_bf16"])
def test_options_are_true_or_false(folder, option):
    with pytest.raises(UserError, match=f"{option} must be true or false, got perhaps"):
        build_trainer(tiny(folder, *SHARDED, f"trainer.strategy.{option}=perhaps"), None, [], [])


def test_other_trainers_are_not_refused_what_they_can(folder):
    config = tiny(folder, "callbacks=ema", "model.compile=true")
    sharded_options.check_sharded(config, build_trainer(config, None, [], []))


def test_cpus_need_gloo(folder, trainer, monkeypatch):
    monkeypatch.setattr(sharded_options.group, "is_gloo_available", lambda: False)
    assert "this torch has no gloo" in refusal(tiny(folder, *SHARDED), trainer)


@pytest.mark.parametrize(
    "strategy",
    [
        *("fsdp", "fsdp_cpu_offload", "deepspeed", "deepspeed_stage_2"),
        {"_target_": "lightning.pytorch.strategies.FSDPStrategy"},
        {"_target_": "lightning.pytorch.strategies.DeepSpeedStrategy", "stage": 3},
        {"_target_": "lightning.pytorch.strategies.ModelParallelStrategy"},
    ],
)
def test_other_ways_to_share_weights_are_refused(strategy):
    with pytest.raises(UserError, match="does not work in lmft") as error:
        sharded_options.check_name(strategy)
    assert "trainer=fsdp2" in str(error.value) and len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize("strategy", ["auto", "ddp", {"_target_": "lmft.training.fully_sharded.FullySharded"}])
def test_others_are_not_refused_by_name(strategy):
    sharded_options.check_name(strategy)
