"""Every optimizer that is shipped: it trains, and resumes bit for bit; weights in groups."""

import pytest
import torch
from safetensors.torch import load_file

from lmft.assembly import assemble
from lmft.cli import checks
from lmft.commands.train import fit
from lmft.config import trainer_options
from lmft.config.shipped import config_dir
from lmft.errors import UserError
from lmft.runs.run import Run
from lmft.training.groups import parameter_groups
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same, cut
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
    whole, expected = train(folder, f"run.name=twenty-{name}", *options)
    losses = [float(row["train/loss"]) for row in rows(whole) if row["train/loss"]]
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.3
    kill_in_training(folder, 12, f"run.name={name}-killed", *options)
    resumed, result = train(folder, f"run.name={name}-killed", *options)
    assert resumed.checkpoint is not None
    assert_same(resumed, whole)
    assert numbers(result) == numbers(expected)


@pytest.mark.parametrize("name", ["adafactor", "muon"])
def test_moments_finer_than_the_weights_are_resumed_as_they_were(name, folder):
    options = (*OPTIONS, f"optimizer={name}", "trainer.precision=bf16-true", "trainer.max_steps=8", "optimizer.lr=1e-2")
    whole, _ = train(folder, f"run.name={name}-bf16", *options)
    cut(whole, f"{name}-bf16-cut", 4)
    resumed, _ = train(folder, f"run.name={name}-bf16-cut", *options)
    assert_same(resumed, whole)


def groups_of(folder, *options):
    """For each weight's name, the options of its group in the optimizer of a new module."""
    module = assemble(tiny(folder, "model.config.n_layers=3", *options)).module()
    optimizer = module.make_optimizer(parameter_groups(module.model, module.grouping))
    names = {weight: name for name, weight in module.model.named_parameters()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    return {names[weight]: group for group in optimizer.param_groups for weight in group["params"]}


def test_the_rate_falls_from_layer_to_layer(folder):
    found = groups_of(folder, "optimizer.lr=1e-3", "optimizer.layer_decay=0.5")
    rates = {name: group["lr"] for name, group in found.items()}
    layers = [rates[f"distilbert.transformer.layer.{number}.attention.q_lin.weight"] for number in range(3)]
    assert layers == pytest.approx([1.25e-4, 2.5e-4, 5e-4])
    assert rates["distilbert.embeddings.word_embeddings.weight"] == pytest.approx(6.25e-5)
    assert rates["vocab_transform.weight"] == rates["vocab_layer_norm.bias"] == 1e-3
    assert found["distilbert.transformer.layer.0.attention.q_lin.bias"]["weight_decay"] == 0.0
    assert "weight_decay=0.01" in f"weight_decay={found['vocab_transform.weight']['weight_decay']}"


def test_parts_and_patterns_have_their_own_options_and_the_last_one_counts(folder):
    groups = "{layers: {lr: 1e-4}, layers.0-1: {lr: 1e-5, weight_decay: 0.3}, *q_lin.bias: {lr: 0}}"
    found = groups_of(folder, "optimizer.lr=1e-3", f"optimizer.groups={groups}")
    layer = "distilbert.transformer.layer"
    assert found[f"{layer}.2.ffn.lin1.weight"]["lr"] == 1e-4
    assert found[f"{layer}.1.ffn.lin1.weight"]["lr"] == 1e-5
    assert found[f"{layer}.1.ffn.lin1.bias"]["weight_decay"] == 0.3
    assert found[f"{layer}.1.attention.q_lin.bias"]["lr"] == found[f"{layer}.2.attention.q_lin.bias"]["lr"] == 0
    assert found["vocab_transform.weight"]["lr"] == 1e-3


def test_muon_has_the_matrices_inside_the_layers(folder):
    found = groups_of(folder, "optimizer=muon")
    for name, group in found.items():
        is_in_layer = ".layer." in name and name.endswith("weight") and "norm" not in name
        assert ("momentum" in group) == is_in_layer and ("betas" in group) != is_in_layer


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("optimizer.groups={layers.7: {lr: 1}}",), "optimizer.groups: distilbert has layers.0-2, not layers.7"),
        (("optimizer.groups={embedings: {lr: 1}}",), "has no part 'embedings' (did you mean 'embeddings'?)"),
        (("optimizer.groups={*.weihgt: {lr: 1}}",), "no weight's name fits '*.weihgt'"),
        (("optimizer.groups={layers.0: {lr: 1}, layers: {lr: 2}}",), "lr of 'layers.0' has no effect"),
        (("optimizer.groups={embeddings: {lr: 1}}", "model.freeze=[embeddings]"), "are frozen"),
        (("optimizer.groups={layers: {learning: 1}}",), "AdamW reads no 'learning' of a group"),
        (("optimizer=muon", "optimizer.groups={embeddings: {momentum: 0.9}}"), "momentum is not read by AdamW"),
        (("optimizer=adafactor", "optimizer.lr=null", "optimizer.relative_step=true", "optimizer.layer_decay=0.9"),
         "needs a rate to lower"),
    ],
)  # fmt: skip
def test_groups_that_would_not_be_used(options, said, folder):
    with pytest.raises(UserError) as error:
        run_groups(folder, *options)
    assert said in error.value.what


def run_groups(folder, *options):
    config = tiny(folder, "model.config.n_layers=3", "run.name=groups", *options)
    fit(config, Run(config, arguments=()))


def test_without_muon_in_torch_it_is_refused(folder, monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match=r"torch .* has no Muon, which came in 2.9"):
        run_groups(folder, "optimizer=muon")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("lion", "torch-optimi", "optimizers"), ("adamw_8bit", "bitsandbytes", "bitsandbytes")],
)
def test_without_its_package_an_optimizer_is_refused(name, package, extra, folder, monkeypatch):
    monkeypatch.setattr(trainer_options, "is_installed", lambda module: False)
    with pytest.raises(UserError) as error:
        checks.check(tiny(folder, f"optimizer={name}"))
    assert error.value.what == f"{package} is not installed"
    assert error.value.fix == f'pip install "lightning-lmft[{extra}]"'


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("layer_decay=1.5", "a factor, above 0 and up to 1"),
        ("groups={embeddings: 1e-5}", "a group of options for each part"),
        ("groups={embeddings: {lr: -1}}", "optimizer.groups.embeddings.lr=-1 must be a number, 0 or more"),
    ],
)
def test_values_that_make_no_sense(option, said, folder):
    with pytest.raises(UserError) as error:
        checks.check(tiny(folder, f"optimizer.{option}"))
    assert said in error.value.what


@pytest.mark.parametrize("name", ["stable_adamw", "muon", "adamw_8bit"])
def test_a_branch_continues_with_every_optimizers_state(name, folder):
    options = (
        *OPTIONS,
        f"optimizer={name}",
        "optimizer.lr=5e-3",
        "scheduler=constant_with_warmup",
        "scheduler.warmup=0",
    )
    whole, _ = train(folder, f"run.name={name}-whole", *options)
    first, _ = train(folder, f"run.name={name}-first", *options, "trainer.max_steps=9")
    branch = (f"run.name={name}-branch", f"resume={first.folder}", "branch=true")
    second, _ = train(folder, *branch, *options, "trainer.max_steps=11")
    found, expected = (load_file(run.paths.model / "model.safetensors") for run in (second, whole))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
