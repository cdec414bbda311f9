"""A spike of the loss: training goes back and leaves out the data, or stops."""

import pytest
import torch

from lmft.errors import UserError
from lmft.modules.base import LanguageModel
from lmft.system.files import read_json
from lmft.training.callbacks.spike import SpikeWatchdog
from tests.helpers.faults import whole_nats
from tests.helpers.resuming import assert_same, cut
from tests.helpers.runs import train

WATCHED = (
    *("callbacks=spike", "callbacks.spike.window=8", "callbacks.spike.min_steps=4", "callbacks.spike.rewind_steps=3"),
    *("callbacks.spike.skip_after=1", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1"),
)
SPIKE = 10


@pytest.fixture
def spiky(monkeypatch):
    """The text of one step, or of several, is far from what the model has learnt."""

    def spiky(*steps):
        def nats(self, batch):
            total = whole_nats(self, batch)
            is_training = torch.is_grad_enabled() and self.training
            return total * 40 if is_training and self.trainer.global_step + 1 in steps else total

        monkeypatch.setattr(LanguageModel, "nats", nats)

    return spiky


def weights(run, step):
    return torch.load(run.paths.checkpoints / f"step={step}.ckpt", weights_only=True)["state_dict"]


def are_equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_training_goes_back_and_leaves_out_the_steps_until_the_spike(spiky, folder, caplog):
    spiky(SPIKE)
    with caplog.at_level("WARNING", "lmft"):
        run, result = train(folder, "run.name=rewound", *WATCHED)
    assert "back to step=7.ckpt, without training on the data of steps 8 to 11" in caplog.text
    (spike,) = result["train"]["spikes"]
    assert (spike["step"], spike["skips"]) == (SPIKE, [8, 11]) and spike["loss"] > 7 * spike["mean"]
    assert read_json(run.paths.spikes)["spikes"] == [spike]
    assert (result["steps"], result["train"]["steps_skipped"]) == (18, 4)
    assert are_equal(weights(run, 7), weights(run, 11)) and not are_equal(weights(run, 11), weights(run, 12))
    assert "steps 8 to 11 did not change the weights" in run.paths.report.read_text()


@pytest.mark.parametrize("step", [6, 9, 14], ids=["before the steps left out", "among them", "after them"])
def test_a_killed_run_leaves_out_the_same_steps(step, spiky, folder):
    spiky(SPIKE)
    whole, result = train(folder, f"run.name=left-out-{step}", *WATCHED)
    cut(whole, f"left-out-{step}-cut", step)
    again, repeated = train(folder, f"run.name=left-out-{step}-cut", *WATCHED)
    assert_same(again, whole)
    assert repeated["train"]["spikes"] == result["train"]["spikes"]


def test_without_a_spike_the_watchdog_changes_nothing(folder):
    common = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "optimizer.lr=1e-4")
    plain, _ = train(folder, "run.name=plain-spiked", *common)
    watched, result = train(folder, "run.name=watched", *WATCHED, *common)
    assert_same(watched, plain)
    assert result["train"]["spikes"] == []


@pytest.mark.parametrize(
    ("options", "steps", "said"),
    [
        (("callbacks.spike.action=stop",), (SPIKE,), "step=7.ckpt is the checkpoint before it"),
        (("checkpoint.every_n_steps=500", "trainer.max_epochs=3"), (7,), "a smaller checkpoint.every_n_steps"),
        (("callbacks.spike.max_rewinds=1",), (SPIKE, 16), "after 1 others from which training went back"),
    ],
    ids=["asked to", "no checkpoint", "once more"],
)
def test_training_stops(options, steps, said, spiky, folder):
    spiky(*steps)
    name = f"run.name=stopped-{len(said)}"
    with pytest.raises(UserError) as error:
        train(folder, name, *WATCHED, *options)
    assert said in str(error.value) and f"step {steps[-1]}: the training loss of" in str(error.value)
    assert len(str(error.value).splitlines()) == 3


def test_the_command_that_goes_back_continues_a_run_that_stopped(spiky, folder):
    spiky(SPIKE)
    with pytest.raises(UserError):
        train(folder, "run.name=goes-on", *WATCHED, "callbacks.spike.action=stop")
    run, result = train(folder, "run.name=goes-on", *WATCHED)
    straight, _ = train(folder, "run.name=straight", *WATCHED)
    assert result["steps"] == 18
    assert_same(run, straight)


@pytest.mark.parametrize(
    "options",
    [{"action": "wait"}, {"deviations": 0}, {"window": 1}, {"min_steps": 50, "window": 10}, {"skip_after": -1}],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SpikeWatchdog(**options)


def test_a_branch_goes_back_to_its_own_checkpoint(spiky, folder):
    first, _ = train(folder, "run.name=before-branch", "trainer.max_steps=2")
    spiky(SPIKE)
    options = (f"resume={first.folder}", "branch=true", *WATCHED)
    run, result = train(folder, "run.name=branch-spiked", *options)
    assert result["train"]["spikes"] and run.paths.log.read_text().count("the optimizer continues with") == 1
    cut(run, "branch-cut", 9)
    again, _ = train(folder, "run.name=branch-cut", *options)
    assert_same(again, run)
