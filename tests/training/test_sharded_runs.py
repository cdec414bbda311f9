"""What else is done with a run whose weights devices have shared: commands, branches, spikes, adapters alone."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.runs.checkpoint_io import read
from lmft.runs.checkpoints import newest_valid, remove_leftovers
from lmft.runs.run import Run
from lmft.system.files import read_json
from tests.helpers.closeness import assert_close, assert_same_scores
from tests.helpers.faults import fill_disk, whole_nats
from tests.helpers.processes import Terminal
from tests.helpers.runs import tiny_arguments
from tests.helpers.several import FEW, cut, folder_of, in_processes, train_noting_losses, train_on

CPU = ("trainer=cpu", "trainer.precision=32-true")


@pytest.fixture(scope="module")
def run(folder):
    train_on(2, folder, "shared", "gpt2_tiny", "data.batch_size=2", *FEW)
    return folder_of(folder, "shared")


@pytest.fixture
def terminal(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    return Terminal(folder, capsys)


def weights(run, step):
    state = read(run.checkpoints / f"step={step}.ckpt")["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def test_commands_read_its_checkpoints(run, folder, terminal):
    terminal.succeeds("evaluate", "run=runs/shared", "checkpoint=last", *CPU, "output=scores.json")
    found = json.loads((folder / "scores.json").read_text())["validation"]["loss"]
    assert found == pytest.approx(read_json(run.metrics)["after"]["loss"], rel=1e-5)
    assert "a fox" in terminal.succeeds("predict", "run=runs/shared", "checkpoint=1", "prompt=a fox")
    terminal.succeeds("export", "run=runs/shared", "checkpoint=average:2", "output=mean", "validate=false", *CPU)
    states = [weights(run, step) for step in (2, 3)]
    for name, value in load_file(folder / "mean" / "model.safetensors").items():
        torch.testing.assert_close(value, sum(state[name] for state in states) / 2, rtol=1e-6, atol=1e-8)


def test_a_module_is_loaded_from_its_checkpoint(run):
    module = LanguageModel.load_from_checkpoint(run.checkpoints / "step=2.ckpt")
    expected = weights(run, 2)
    found = module.model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_commands_refuse_a_checkpoint_that_lacks_a_part(run, folder, terminal, command):
    cut(folder, "shared", f"lacks-{command}", 2)
    part = (folder / f"runs/lacks-{command}/checkpoints/step=2.ckpt.xxh3").read_text().split()[1]
    (folder / f"runs/lacks-{command}/checkpoints/{part}.part").unlink()
    options = {"evaluate": CPU, "predict": ("prompt=a fox",), "export": ("output=lacking", *CPU)}[command]
    said = terminal.refuses(command, f"run=runs/lacks-{command}", "checkpoint=2", *options)
    assert f"its part {part}.part is missing" in said


@pytest.mark.slow
@pytest.mark.parametrize(("parent", "devices"), [("shared", 1), ("shared", 2), ("alone", 2)])
def test_a_branch_of_one_or_two_devices_is_that_of_the_other(run, folder, parent, devices):
    def branch(name, origin, number):
        options = (f"resume={folder_of(folder, origin).path}", "branch=true", *FEW, "optimizer.lr=2e-3")
        if number == 1:
            options = (f"run.name={name}", "data.batch_size=4", *options)
            return train_noting_losses(folder, "gpt2_tiny", *options)
        return train_on(2, folder, name, "gpt2_tiny", "data.batch_size=2", *options)

    if not folder_of(folder, "alone").path.exists():
        train_noting_losses(folder, "gpt2_tiny", "run.name=alone", "data.batch_size=4", *FEW)
        branch("alone-branch", "alone", 1)
    expected = read_json(folder_of(folder, "alone-branch").metrics)
    found = branch(f"{parent}-branch-{devices}", parent, devices)
    assert_same_scores(found["before"], expected["before"])
    assert_same_scores(found["after"], expected["after"])
    log = folder_of(folder, f"{parent}-branch-{devices}").log.read_text()
    assert "the optimizer continues with its parent's state of" in log


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["ddp", "fsdp2"])
def test_after_a_spike_the_same_command_continues(folder, monkeypatch, trainer):
    """Several processes end at the checkpoint before the spike; what they leave out is what one process does."""

    def nats(self, batch):
        total = whole_nats(self, batch)
        is_training = torch.is_grad_enabled() and self.training
        return total * 40 if is_training and self.trainer.global_step + 1 == 6 else total

    monkeypatch.setattr(LanguageModel, "nats", nats)
    watched = ("callbacks=spike", "callbacks.spike.window=4", "callbacks.spike.min_steps=2")
    watched += ("callbacks.spike.rewind_steps=2", "callbacks.spike.skip_after=1", "trainer.max_steps=9")
    watched += ("optimizer.lr=1e-3", "scheduler=constant_with_warmup")
    name = f"spike-{trainer}"
    one = train_noting_losses(folder, "gpt2_tiny", f"run.name={name}-1", "data.batch_size=4", *watched)
    with pytest.raises(AssertionError):
        train_on(2, folder, name, "gpt2_tiny", "data.batch_size=2", *watched, trainer=trainer)
    run = folder_of(folder, name)
    assert "back to step=4.ckpt, without training on the data of steps 5 to 7" in run.log.read_text()
    assert not (run.checkpoints / "step=5.ckpt").exists()
    two = train_on(2, folder, name, "gpt2_tiny", "data.batch_size=2", *watched, trainer=trainer)
    assert two["train"]["steps_skipped"] == one["train"]["steps_skipped"] == 3
    assert_close(two["losses"][-2:], one["losses"][-2:], 1, 1e-6)
    assert_same_scores(two["after"], one["after"])


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1, 2], ids=["stays full", "older make room"])
def test_a_full_disk_of_one_process(run, folder, kept):
    """Of the checkpoints of steps 1 and 2 the older one makes room; without it all processes end alike."""
    name = f"full-{kept}"
    cut(folder, "shared", name, kept)
    checkpoints = folder_of(folder, name).checkpoints
    for path in checkpoints.glob("best.*"):
        path.unlink()
    remove_leftovers(checkpoints)
    losses = folder / f"{name}.json"

    def task():
        options = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
        with pytest.MonkeyPatch.context() as patch:
            if os.environ["RANK"] == "1":
                fill_disk(checkpoints, patch, free_bytes=1000)
            try:
                train_noting_losses(folder, "gpt2_tiny", f"run.name={name}", *options, *FEW)
            except UserError as error:
                losses.with_suffix(f".{os.environ['RANK']}").write_text(str(error))

    assert in_processes(2, task) == [0, 0]
    log = folder_of(folder, name).log.read_text()
    if kept == 2:
        assert "the disk is full: step=1.ckpt removed to make room for step=3.ckpt" in log
        assert not list(folder.glob(f"{name}.[01]"))
    else:
        for rank in (0, 1):
            said = losses.with_suffix(f".{rank}").read_text()
            assert "the disk is full: step=2.ckpt could not be written" in said and len(said.splitlines()) <= 3
        assert newest_valid(checkpoints)[0] == checkpoints / "step=1.ckpt"


@pytest.mark.slow
def test_adapters_alone_are_those_of_one_device(run, folder):
    shape = [f"model.config.{name}" for name in ("n_embd", "n_layer", "n_head")]
    tiny = [each for each in tiny_arguments(folder, "gpt2_tiny") if each.partition("=")[0] not in shape]
    tiny = [each for each in tiny if not each.startswith(("model=", "model.tokenizer", "data.batch_size"))]
    tiny += ["model=causal", f"model.name_or_path={run.model}", "model.lora.r=2", "model.lora.merge=false"]
    tiny += ["model.probes=[]", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", *FEW]

    def adapt(name, number, *options):
        config = compose([*tiny, f"run.name={name}", f"data.batch_size={4 // number}", *options])
        fit(config, Run(config, arguments=()))

    adapt("adapters-1", 1)
    two = ("trainer=fsdp2", "trainer.accelerator=cpu", "trainer.devices=2")
    assert in_processes(2, adapt, "adapters-2", 2, *two) == [0, 0]
    one, other = (folder_of(folder, f"adapters-{number}") for number in (1, 2))
    assert_same_scores(read_json(other.metrics)["after"], read_json(one.metrics)["after"])
    found, expected = (load_file(each.model / "adapter_model.safetensors") for each in (other, one))
    assert_close(found, expected, 2, 1e-4)
    configs = [read_json(each.model / "adapter_config.json") for each in (other, one)]
    for config in configs:
        config["target_modules"].sort()  # peft writes a set
    assert configs[0] == configs[1]
