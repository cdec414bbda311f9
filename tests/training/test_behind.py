"""A device that is two steps ahead of what the host knows of them: nothing that a run leaves differs."""

import pytest
import torch
from lightning import Callback

from lmft.assembly import assemble
from lmft.modules.base import LanguageModel
from lmft.training import step as steps
from lmft.training.nonfinite import NonFiniteStepError
from lmft.training.trainer import build_trainer
from tests.helpers.faults import broken_at, broken_gradient_at
from tests.helpers.runs import numbers, rows, tiny, train

COMMON = ("trainer.max_steps=12", "trainer.log_every_n_steps=5", "scheduler.warmup=0")
BROKEN = {"loss": broken_at(4, float("nan")), "gradient": broken_gradient_at(4)}


@pytest.fixture
def behind(monkeypatch):
    """From now on the host reads a step's outcome when two more steps are done, as on a GPU."""
    monkeypatch.setitem(steps.STEPS_BEHIND, "cpu", 2)


class States(Callback):
    """Keeps weights and the optimizer's state after each step."""

    def __init__(self):
        self.states = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(state_of(trainer, pl_module))


def state_of(trainer, module):
    state = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    for i, of_weight in enumerate(trainer.optimizers[0].state.values()):
        state |= {f"{i}.{name}": torch.as_tensor(value).clone() for name, value in of_weight.items()}
    return state


def are_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def fitted(folder, *options):
    """A training that writes nothing: its states after each step, its trainer and module, and what ended it."""
    config = tiny(folder, "data.validation_fraction=0", "+trainer.enable_checkpointing=false", *COMMON, *options)
    parts = assemble(config)
    torch.manual_seed(0)
    module = parts.module()
    seen = States()
    trainer = build_trainer(config, None, [seen], [])
    try:
        trainer.fit(module, parts.datamodule())
    except NonFiniteStepError as error:
        return seen.states, trainer, module, error
    return seen.states, trainer, module, None


@pytest.mark.parametrize("options", [(), ("optimizer=sgd", "optimizer.momentum=0.9")], ids=["AdamW", "SGD"])
@pytest.mark.parametrize("what", BROKEN)
def test_weights_and_moments_stay_those_before_a_step_that_is_not_finite(what, options, folder, monkeypatch, behind):
    options = ("+trainer.enable_progress_bar=false", *options, *(["+optimizer.fused=true"] if options else []))
    monkeypatch.setattr(LanguageModel, "nats", BROKEN[what])
    before, trainer, module, error = fitted(folder, *options)
    assert error is not None and error.place.step == 4 and error.place.positions == (3,)
    assert len(before) == 5 and trainer.global_step == 5  # two steps late: the sixth was being ended
    assert are_equal(state_of(trainer, module), before[2])
    assert not are_equal(before[2], before[1])


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_leaves_what_it_leaves_if_each_step_is_waited_for(accumulate, folder, monkeypatch, behind):
    further = ("optimizer.lr=0.01", "checkpoint.every_n_steps=4")
    options = (*COMMON, f"trainer.accumulate_grad_batches={accumulate}", *further)
    run, result = train(folder, f"run.name=behind-{accumulate}", *options)
    monkeypatch.undo()
    waited, again = train(folder, f"run.name=waited-{accumulate}", *options)
    assert rows(run) == rows(waited) and numbers(again) == numbers(result)
    saved, other = (torch.load(each.paths.checkpoints / "last.ckpt", weights_only=True) for each in (run, waited))
    assert are_equal(saved["state_dict"], other["state_dict"]) and saved["steps"] == other["steps"]


def test_skipped_steps_are_counted_and_change_nothing(folder, monkeypatch, behind):
    monkeypatch.setattr(LanguageModel, "nats", BROKEN["gradient"])
    before, _, module, error = fitted(folder, "nonfinite=skip", "+trainer.enable_progress_bar=false")
    assert error is None and module.step.outcomes.num_skipped == 1
    assert are_equal(before[3], before[2]) and not are_equal(before[4], before[3])


def test_no_checkpoint_holds_a_step_that_is_not_finite(folder, monkeypatch, behind):
    monkeypatch.setattr(LanguageModel, "nats", BROKEN["loss"])
    options = (*COMMON, "checkpoint.every_n_steps=5", "run.name=drained")
    with pytest.raises(Exception, match="step 4: the loss is not finite"):
        train(folder, *options)
    assert not list((folder / "runs/drained/checkpoints").glob("*.ckpt"))
    assert (folder / "runs/drained/not-finite-step=4.json").exists()


def test_a_training_after_one_that_was_not_finite_trains(folder, monkeypatch, behind):
    with monkeypatch.context() as patched:
        patched.setattr(LanguageModel, "nats", BROKEN["loss"])
        _, _, module, error = fitted(folder, "+trainer.enable_progress_bar=false")
    assert error is not None
    module.step.compute_nats = module.nats
    parts = assemble(tiny(folder, "data.validation_fraction=0", *COMMON))
    before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
    quiet = ("+trainer.enable_progress_bar=false", "+trainer.enable_checkpointing=false")
    config = tiny(folder, "data.validation_fraction=0", *COMMON, *quiet)
    build_trainer(config, None, [], []).fit(module, parts.datamodule())
    assert not are_equal(before, dict(module.named_parameters()))


@pytest.mark.parametrize(
    "option", ["optimizer=adafactor", "+trainer.gradient_clip_algorithm=value", "optimizer.fused=false"]
)
def test_optimizers_that_cannot_guard_are_guarded_before(option, folder, monkeypatch, behind):
    monkeypatch.setattr(LanguageModel, "nats", BROKEN["gradient"])
    before, trainer, module, error = fitted(folder, option, "+trainer.enable_progress_bar=false")
    assert error is not None and error.place.step == 4 and len(before) == 3
    assert are_equal(state_of(trainer, module), before[2])
