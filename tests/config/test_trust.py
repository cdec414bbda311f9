import sys
from functools import partial

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy

from lmft.config import command_line, hydra_config, load
from lmft.config.load import compose
from lmft.config.sources import Sources
from lmft.config.trust import trusted_instance
from lmft.errors import UserError
from lmft.objectives.mixture import Mixture
from lmft.objectives.span_corruption import SpanCorruption


def refused(call, *arguments):
    with pytest.raises(UserError) as error:
        call(*arguments)
    assert len(str(error.value).splitlines()) <= 3
    return error.value


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own, with an objective in it."""
    (tmp_path / "mine.py").write_text(
        "import os\nfrom lmft.objectives.mlm import MaskedTokens\n"
        "class Mine(MaskedTokens):\n    pass\n"
        "def make():\n    return Mine()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


# what the shipped choices name


def test_what_is_ours_is_made():
    spans = {"_target_": "lmft.objectives.span_corruption.SpanCorruption", "noise_density": 0.15}
    mixture = {"_target_": "lmft.objectives.mixture.Mixture", "objectives": [spans, spans], "weights": [1, 2]}
    made = trusted_instance(mixture, [], "objective")
    assert isinstance(made, Mixture) and {type(each) for each in made.objectives} == {SpanCorruption}
    stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"}
    assert isinstance(trusted_instance(stopping, [], "callbacks.early_stopping"), EarlyStopping)
    optimizer = trusted_instance({"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1}, [], "optimizer")
    assert isinstance(optimizer, partial) and optimizer.func is torch.optim.AdamW


def test_objects_go_in_beside_a_strategy_that_is_named():
    strategy = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "process_group_backend": "gloo"}
    trainer = {"_target_": "lightning.Trainer", "accelerator": "cpu", "devices": 1, "logger": False}
    mine = EarlyStopping("val/loss")
    made = trusted_instance({**trainer, "strategy": strategy}, [], "trainer", callbacks=[mine])
    assert isinstance(made, Trainer) and isinstance(made.strategy, DDPStrategy) and mine in made.callbacks


# what is not


@pytest.mark.parametrize(
    "target",
    [
        "builtins.open",
        "torch.load",
        "joblib.load",
        "os.system",
        "hydra.utils.get_method",
        "torch.optim.sgd.torch.load",  # begins with a trusted package, and leads to another
        "lightning.pytorch.trainer.trainer.os.system",
        "lmft.objectives.mlm.np.load",
        "lightning.pytorch.callbacks.Callback.__subclasses__",
        "lightning.seed_everything",  # of a trusted package, but nothing that is plugged in
        "lightning.pytorch.cli.LightningCLI",
        "torch.optim.lr_scheduler.LinearLR",
        "lmft.objectives",
    ],
)
@pytest.mark.parametrize("place", ["here", "in a list", "in an argument"])
def test_what_is_not_trusted_is_not_called(target, place):
    bad = {"_target_": target}
    stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping"}
    node = {"here": bad, "in a list": {**stopping, "x": [1, bad]}, "in an argument": {**stopping, "x": {"y": bad}}}
    error = refused(trusted_instance, node[place], [], "callbacks.mine")
    key = {"here": "", "in a list": ".x.1", "in an argument": ".x.y"}[place]
    assert (error.what, error.where) == (f"_target_: {target} is not trusted", f"callbacks.mine{key}")
    assert f"trust.targets=[{target}] on the command line" in error.fix


def test_a_refused_module_is_not_even_imported(tmp_path, monkeypatch):
    (tmp_path / "touchy.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "touchy.X is not trusted" in str(refused(trusted_instance, {"_target_": "touchy.X"}, [], "logger.x"))


def test_a_class_that_is_not_there():
    missing = {"_target_": "lmft.objectives.mlm.MaskedTokenz"}
    assert "there is no lmft.objectives.mlm.MaskedTokenz" in str(refused(trusted_instance, missing, [], "objective"))


def test_an_interpolation_cannot_bring_in_what_was_not_seen():
    """Hydra resolves once more what is left of an interpolation that was escaped."""
    hidden = r'${oc.create:"{_target_: builtins.open, file: stolen, mode: w}"}'
    node = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": hidden}
    assert "gives an interpolation" in str(refused(trusted_instance, node, [], "callbacks.x"))


# what the user adds


def test_an_objective_of_ones_own(mine):
    node = {"_target_": "mine.Mine", "mlm_probability": 0.3}
    refused(trusted_instance, node, [], "objective")
    for trusted in ("mine.Mine", "mine.*"):
        assert trusted_instance(node, [trusted], "objective").mlm_probability == 0.3


def test_a_name_is_trusted_as_it_is_and_a_package_for_what_is_written_in_it(mine):
    assert trusted_instance({"_target_": "mine.make"}, ["mine.make"], "x").mlm_probability == 0.15
    assert trusted_instance({"_target_": "mine.make"}, ["mine.*"], "x").mlm_probability == 0.15
    assert trusted_instance({"_target_": "builtins.len", "_args_": ["four"]}, ["builtins.len"], "x") == 4
    refused(trusted_instance, {"_target_": "mine.os.getcwd"}, ["mine.*"], "x")
    refused(trusted_instance, {"_target_": "miner.Mine"}, ["mine.*"], "x")
    refused(trusted_instance, {"_target_": "mine.Mine.mro"}, ["mine.Mine"], "x")


# whose word counts


@pytest.fixture
def folder(tmp_path):
    def write(text, name="mine"):
        (tmp_path / "experiment").mkdir(exist_ok=True)
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")
        return Sources(folder=str(tmp_path))

    return write


def composed(folder, *overrides):
    """What the commands do with the user's folder of YAML files."""
    overrides = ["experiment=mine", *overrides]
    command_line.check(overrides, "train", folder)
    return load.plain(hydra_config.composed(overrides, "train", folder), overrides)


OPENS = "logger: {x: {_target_: builtins.open, file: stolen, mode: w}}"


def test_a_yaml_file_cannot_name_just_anything(folder):
    error = refused(composed, folder(OPENS))
    assert (error.what, error.where) == ("_target_: builtins.open is not trusted", "logger.x")
    assert composed(folder(OPENS), "trust.targets=[builtins.open]")["logger"]["x"]["_target_"] == "builtins.open"


def test_a_yaml_file_cannot_trust_itself(folder):
    error = refused(composed, folder(f"{OPENS}\ntrust: {{targets: [builtins.open]}}"))
    assert error.what == "trust.targets counts only on the command line"
    hidden = "hydra: {overrides: {task: ['trust.targets=[builtins.open]']}}"
    refused(composed, folder(f"{OPENS}\ntrust: {{targets: [builtins.open]}}\n{hidden}"))
    assert composed(folder("trust: {targets: [builtins.open]}"), "trust.targets=[]")["trust"]["targets"] == []


def test_remote_code_is_the_users_word_too(folder):
    text = f"model: {{trust_remote_code: true, revision: {'a' * 40}}}"
    assert refused(composed, folder(text)).what == "model.trust_remote_code counts only on the command line"
    assert composed(folder(text), "model.trust_remote_code=true")["model"]["trust_remote_code"] is True


def test_one_name_without_brackets_is_told_of():
    assert refused(compose, ["trust.targets=builtins.open"]).fix == "trust.targets=[builtins.open]"


@pytest.mark.parametrize(
    ("node", "where"),
    [
        ("callbacks: {x: {_target_: builtins.open, file: stolen}}", "hydra.callbacks.x"),
        ("callbacks: {x: {_target_: hydra.experimental.callbacks.os.system}}", "hydra.callbacks.x"),
        ("launcher: {_target_: builtins.open}", "hydra.launcher"),
        ("sweeper: {params: {_target_: builtins.open}}", "hydra.sweeper.params"),
        ("sweeper: {params: '${seed_of}'}", "hydra.sweeper.params"),
        ("job_logging: {handlers: {x: {(): builtins.open, file: stolen}}}", "hydra.job_logging.handlers.x"),
        ("job_logging: {handlers: {x: {class: logging.os.system}}}", "hydra.job_logging.handlers.x"),
        ("callbacks: {x: {_target_: hydra.experimental.callbacks.A, y: ['\\${seed}']}}", "hydra.callbacks.x.y.0"),
    ],
)
@pytest.mark.parametrize("swept", [False, True])
def test_hydras_own_node_takes_only_hydras_own(node, where, swept, folder):
    folder("seed: 2", "harmless")
    text = f"seed_of: {{_target_: builtins.open}}\nhydra: {{{node}}}"
    overrides = ["experiment=harmless,mine" if swept else "experiment=mine"]
    assert refused(command_line.check, overrides, "train", folder(text)).where == where


def test_hydras_own_pass(folder):
    node = "hydra: {callbacks: {x: {_target_: hydra.experimental.callbacks.LogJobReturnCallback}}}"
    command_line.check(["experiment=mine"], "train", folder(node))
