"""Whether a callback has changed the weights since the last validation."""

import itertools
import json

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.demos.boring_classes import BoringModel
from safetensors.torch import load_file

from lmft.commands.evaluate import measure as evaluate
from lmft.runs.trained import recorded_config
from lmft.training.callbacks.measured import MeasuredWeights, weights_changed_after_validation, weights_checksum
from tests.helpers.runs import rows, tiny, train

AVERAGING = ("+callbacks.x._target_=lightning.pytorch.callbacks.StochasticWeightAveraging", "+callbacks.x.swa_lrs=0.1")


class AtTheEnd(Callback):
    """Adds something to the weights when training ends."""

    def on_train_end(self, trainer, pl_module):
        next(pl_module.parameters()).data += 1


class WorseAtTheEnd(Callback):
    """Makes the model worse when training ends."""

    def on_train_end(self, trainer, pl_module):
        for weight in pl_module.parameters():
            weight.data *= 3


def fitted(*callbacks, **options):
    trainer = Trainer(
        **{"max_epochs": 2, "limit_train_batches": 4, "limit_val_batches": 1, **options},
        accelerator="cpu",
        callbacks=[*callbacks, MeasuredWeights()],
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
    trainer.fit(BoringModel())
    return trainer


@pytest.mark.parametrize(
    ("callbacks", "changed"),
    [
        ([], False),
        ([AtTheEnd()], True),
        ([StochasticWeightAveraging(swa_lrs=0.1)], True),
        ([WeightAveraging()], False),  # puts the average in for each validation, too
    ],
)
def test_what_changes_the_weights_when_training_ends_is_seen(callbacks, changed):
    trainer = fitted(*callbacks)
    assert weights_changed_after_validation(trainer) is changed
    trainer.validate(trainer.lightning_module, verbose=False)
    assert not weights_changed_after_validation(trainer), "the numbers are these weights' now"


def test_steps_after_the_last_validation_are_seen_too():
    assert weights_changed_after_validation(fitted(val_check_interval=3))
    assert not weights_changed_after_validation(fitted(val_check_interval=2))


def test_without_a_validation_there_is_nothing_to_compare():
    assert not weights_changed_after_validation(fitted(limit_val_batches=0))


def test_the_checksum_is_of_every_weight_and_buffer_in_any_precision():
    module = BoringModel().to(torch.bfloat16)
    module.register_buffer("count", torch.tensor(1))
    before = weights_checksum(module)
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        kept = tensor.detach().clone()
        tensor.data.view(-1)[-1] += 1
        assert weights_checksum(module) != before
        tensor.data.copy_(kept)
        assert weights_checksum(module) == before


def test_the_numbers_of_a_run_are_those_of_its_averaged_weights(tmp_path):
    run, result = train(tmp_path, "run.name=averaged", "model.export=last", *AVERAGING)
    plain, _ = train(tmp_path, "run.name=plain", "optimizer.lr=0.1")
    assert [int(row["step"]) for row in rows(run) if row["val/loss"]] == [0, 9, 18, 18]
    config = recorded_config(run.folder, {**tiny(tmp_path), "run": str(run.folder)}, [])
    assert evaluate(config)["validation"]["loss"] == pytest.approx(result["after"]["loss"], rel=1e-6)
    assert json.loads(run.paths.metrics.read_text())["after"] == result["after"]
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (run, plain))
    assert not all(torch.equal(weights[name], others[name]) for name in weights)


def test_weights_that_a_callback_made_worse_at_the_end_are_not_exported_unless_asked_for(tmp_path, caplog):
    name = "tests.training.callbacks.test_measured.WorseAtTheEnd"
    options = (f"trust.targets=[{name}]", f"+callbacks.x._target_={name}", "trainer.max_epochs=1")
    _, result = train(tmp_path, "run.name=best", *options)
    assert result["exported"]["loss"] == result["best"]["loss"] < result["after"]["loss"]
    assert "model.export=last exports the callback's" in caplog.text
    caplog.clear()
    _, last = train(tmp_path, "run.name=last", "model.export=last", *options)
    assert last["exported"]["loss"] == last["after"]["loss"] == result["after"]["loss"]
    assert "exports the callback's" not in caplog.text
