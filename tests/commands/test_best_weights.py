"""Which weights a run hands over, what its numbers say of them, and how those of its checkpoints are asked for."""

import shutil

import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file

from lmft.commands.evaluate import measure as evaluate
from lmft.commands.predict import answer as predict
from lmft.config.load import compose
from lmft.errors import UserError
from lmft.runs.checkpoint_io import read
from lmft.runs.trained import config_to_use
from tests.helpers.causal import chat_arguments
from tests.helpers.causal import train as train_causal
from tests.helpers.runs import numbers, train

SPOIL = (
    "trust.targets=[tests.commands.test_best_weights.Spoil]",
    "+callbacks.spoil._target_=tests.commands.test_best_weights.Spoil",
)
"""Options under which the best validation is that of the first epoch."""


class Spoil(Callback):
    """Makes the model worse when the second epoch begins."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            with torch.no_grad():
                for weight in pl_module.parameters():
                    weight.mul_(3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("best")


@pytest.fixture(scope="module")
def spoilt(folder):
    """A run of two epochs of nine steps, of which the first ends with the best validation."""
    run, result = train(folder, "run.name=spoilt", *SPOIL)
    assert result["best"]["loss"] < result["after"]["loss"]
    return run, result


def exported_loss(folder, run):
    """The loss of what lies in model/, measured by the command."""
    return measured(folder, run)["loss"]


def measured(folder, run, *overrides):
    overrides = [f"run={run.folder}", "trainer=cpu", "trainer.precision=32-true", *overrides]
    return evaluate(config_to_use(compose(overrides, "evaluate"), overrides))["validation"]


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


def test_the_best_weights_are_handed_over(folder, spoilt):
    run, result = spoilt
    assert result["exported"]["step"] == result["best"]["step"] == 9
    assert result["exported"]["checkpoint"] == "best"
    assert result["exported"]["loss"] == result["best"]["loss"]
    assert exported_loss(folder, run) == pytest.approx(result["best"]["loss"], rel=1e-5)
    saved = read(run.paths.checkpoints / "best.ckpt")["state_dict"]
    assert all(torch.equal(saved[f"model.{name}"], weight) for name, weight in weights_of(run).items())
    assert "step 9" in (run.paths.model / "README.md").read_text()


def test_the_last_weights_are_handed_over_on_request(folder):
    run, result = train(folder, "run.name=last", "model.export=last", *SPOIL)
    assert result["exported"]["step"] == 18 and result["exported"]["checkpoint"] == "last"
    assert result["exported"]["loss"] == result["after"]["loss"] > result["best"]["loss"]
    assert exported_loss(folder, run) == pytest.approx(result["after"]["loss"], rel=1e-5)
    again, other = train(folder, "run.name=last", "model.export=best", *SPOIL)
    assert other["exported"]["step"] == 9
    assert exported_loss(folder, again) == pytest.approx(other["best"]["loss"], rel=1e-5)


def test_the_weights_before_training_are_never_the_best(folder):
    options = ("run.name=worse", "optimizer.lr=3.0", "trainer.max_epochs=1")
    _, result = train(folder, *options)
    assert result["before"]["loss"] < result["best"]["loss"]
    assert result["exported"]["step"] == result["best"]["step"] == 9


def test_without_checkpoints_the_best_weights_are_kept_until_the_end(folder, spoilt):
    run, result = train(folder, "run.name=none", "checkpoint.keep_last=0", *SPOIL)
    assert numbers(result) == numbers(spoilt[1]) and not run.paths.checkpoints.exists()
    assert all(torch.equal(weight, weights_of(spoilt[0])[name]) for name, weight in weights_of(run).items())
    with pytest.raises(UserError, match="no checkpoint of it was kept"):
        train(folder, "run.name=none", "checkpoint.keep_last=0", "trainer.max_epochs=3", *SPOIL)


def test_without_validation_the_last_weights_are_handed_over(folder):
    _, result = train(folder, "run.name=blind", "data.validation_fraction=0")
    assert result["exported"]["checkpoint"] == "last" and result["exported"]["loss"] is None


def test_a_run_that_died_before_it_named_its_best_names_it_when_resumed(folder, spoilt):
    run, _ = train(folder, "run.name=died", "trainer.max_epochs=1", *SPOIL)
    for name in ("best.ckpt", "best.ckpt.xxh3"):
        (run.paths.checkpoints / name).unlink()
    again, result = train(folder, "run.name=died", "trainer.max_epochs=2", *SPOIL)
    assert result["exported"]["step"] == 9 and (again.paths.checkpoints / "best.ckpt").exists()


def test_a_run_from_anothers_checkpoint_hands_over_the_best_of_its_own(folder, spoilt):
    other, before = spoilt
    options = ("run.name=branch", f"resume={other.folder}/checkpoints/last.ckpt", "trainer.max_epochs=3", *SPOIL)
    run, result = train(folder, *options)
    assert result["exported"]["step"] == 27 and result["exported"]["checkpoint"] == "best"
    assert before["best"]["loss"] < result["exported"]["loss"]
    assert exported_loss(folder, run) == pytest.approx(result["exported"]["loss"], rel=1e-5)


def test_a_run_that_died_before_it_exported_exports_the_same(folder, spoilt):
    run, result = train(folder, "run.name=unexported", *SPOIL)
    before = weights_of(run)
    shutil.rmtree(run.paths.model)
    run.paths.metrics.unlink()
    again, other = train(folder, "run.name=unexported", *SPOIL)
    assert other["exported"] == result["exported"]
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(again).items())


def test_a_best_checkpoint_that_is_broken_is_not_handed_over(folder, caplog):
    run, _ = train(folder, "run.name=broken", *SPOIL)
    best = run.paths.checkpoints / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-1] + b"!")
    shutil.rmtree(run.paths.model)
    run.paths.metrics.unlink()
    _, result = train(folder, "run.name=broken", *SPOIL)
    assert result["exported"]["checkpoint"] == "last" and "best.ckpt, of step 9, is broken" in caplog.text


def test_the_weights_of_a_checkpoint_are_measured(folder, spoilt):
    run, result = spoilt
    for which, stage in (("best", "best"), ("9", "best"), ("last", "after"), ("18", "after")):
        loss = measured(folder, run, f"checkpoint={which}")["loss"]
        assert loss == pytest.approx(result[stage]["loss"], rel=1e-5), which
    for which in ("first", "7"):
        with pytest.raises(UserError, match="best, last, 9, 18"):
            measured(folder, run, f"checkpoint={which}")


def test_the_weights_of_a_checkpoint_answer(spoilt):
    run, _ = spoilt
    answers = {}
    for which in ("null", "best", "last"):
        overrides = [f"run={run.folder}", f"checkpoint={which}", "prompt='the [MASK] fox'"]
        answers[which] = predict(config_to_use(compose(overrides, "predict"), overrides), ["the [MASK] fox"])
    first, best, last = (answers[which][0]["fills"][0][0]["probability"] for which in ("null", "best", "last"))
    assert best == pytest.approx(first, rel=1e-4) and last != pytest.approx(first, rel=1e-4)


def test_a_checkpoint_of_an_unfinished_run_is_measured_on_request(folder):
    run, _ = train(folder, "run.name=unfinished", "trainer.max_epochs=1")
    shutil.rmtree(run.paths.model)
    with pytest.raises(UserError, match="checkpoint=last"):
        measured(folder, run)
    assert measured(folder, run, "checkpoint=last")["targets"] > 0


def test_a_checkpoint_of_adapters_and_new_tokens_is_measured(tmp_path):
    arguments = [*chat_arguments(tmp_path), "model.lora.r=2", "run.name=adapters", "trainer.max_epochs=1"]
    run, result = train_causal(*arguments)
    assert measured(tmp_path, run, "checkpoint=last")["loss"] == pytest.approx(result["after"]["loss"], rel=1e-4)
    assert exported_loss(tmp_path, run) == pytest.approx(result["exported"]["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=masked", "model.name_or_path=x", "checkpoint=best"], "add run="),
        (["run=runs/x", "model=masked"], "two models"),
        (["run=runs/x", "model.name_or_path=y"], "two models"),
    ],
)
def test_a_checkpoint_without_a_run_and_two_models_are_refused(overrides, said):
    with pytest.raises(UserError, match=said):
        config_to_use(compose(overrides, "evaluate"), overrides)


def test_another_training_is_not_taken_for_the_complete_one(folder, spoilt):
    run, _ = spoilt
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for change in ("optimizer.lr=1e-4", "objective.mlm_probability=0.2", "seed=7"):
        with pytest.raises(UserError, match=f"other settings: {change.partition('=')[0]}"):
            train(folder, "run.name=spoilt", *SPOIL, change)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_changed_settings_that_a_complete_run_does_not_use_are_named(folder, spoilt, caplog):
    with caplog.at_level("INFO", "lmft"):
        train(folder, "run.name=spoilt", *SPOIL, "trainer.log_every_n_steps=3")
    assert "trainer.log_every_n_steps: 10 → 3" in caplog.text and "is complete: " in caplog.text


@pytest.mark.parametrize("options", [["data.validation_fraction=0"], ["validate_before=false"]])
def test_the_first_answers_are_those_from_before_training(options, tmp_path):
    probe = "data.probes=['the [MASK] fox']"
    run, _ = train(tmp_path, "run.name=x", probe, *options)
    stages = [line.split('"stage": "')[1].partition('"')[0] for line in run.paths.samples.read_text().splitlines()]
    assert stages[0] == "before" and stages[-1] == "after" and stages.count("before") == 1


def test_asking_before_training_changes_no_weight(tmp_path):
    weights = []
    for name, options in (("asked", ["data.probes=['the [MASK] fox']"]), ("not", [])):
        run, _ = train(tmp_path, f"run.name={name}", "validate_before=false", "trainer.max_epochs=1", *options)
        weights.append(weights_of(run))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
