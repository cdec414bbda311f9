"""Runs from their beginning to their end, and what is said of those that cannot begin."""

import json
import logging
import warnings

import pytest
import torch
from safetensors.torch import load_file

from lmft.assembly import assemble
from lmft.commands import train as module
from lmft.commands.evaluate import measure as evaluate
from lmft.commands.predict import answer as predict
from lmft.commands.prepare import tokenise as prepare
from lmft.errors import UserError
from lmft.runs.run import Run
from lmft.runs.trained import recorded_config
from tests.helpers.closeness import assert_close, assert_same_scores
from tests.helpers.runs import numbers, rows, tiny, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Text, cache and runs of the trainings here."""
    return tmp_path_factory.mktemp("fit")


@pytest.fixture(scope="module")
def finished(folder):
    """A run of two epochs of nine steps, and its metrics."""
    return train(folder, "run.name=finished", "data.probes=['the [MASK] fox']")


def refused(folder, *overrides):
    """What is said of a training that cannot begin; nothing of it is left."""
    before = sorted((folder / "runs").glob("*")) if (folder / "runs").exists() else []
    with pytest.raises(UserError) as error:
        train(folder, "run.name=refused", *overrides)
    assert sorted((folder / "runs").glob("*")) == before
    said = str(error.value)
    assert len(said.splitlines()) <= 3
    return said


def test_a_complete_run_says_so_and_stays_as_it_is(finished, folder, caplog):
    run, result = finished
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    with caplog.at_level("INFO", "lmft"):
        _, again = train(folder, "run.name=finished", "data.probes=['the [MASK] fox']")
    assert "finished is complete: 18 of 18 steps; a larger trainer.max_epochs continues it" in caplog.text
    assert again == json.loads(run.paths.metrics.read_text()) and numbers(again) == numbers(result)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_the_earlier_of_two_limits_is_said(folder, caplog):
    with caplog.at_level("INFO", "lmft"):
        train(folder, "run.name=two-limits", "trainer.max_epochs=1", "trainer.max_steps=400")
    said = "trainer.max_epochs=1 ends the training after 9 steps, before trainer.max_steps=400"
    assert said in caplog.text
    assert "targets: too few to choose weights by" in caplog.text


def test_more_epochs_continue_a_complete_run(folder):
    run, first = train(folder, "run.name=longer")
    longer, more = train(folder, "run.name=longer", "trainer.max_epochs=3")
    assert longer.checkpoint == run.paths.checkpoints / "last.ckpt"
    assert (first["steps"], more["steps"]) == (18, 27)
    assert (first["epochs"], more["epochs"]) == (2, 3)
    assert more["before"] == first["before"]
    assert more["train"]["tokens"] == 1.5 * first["train"]["tokens"]
    assert more["after"]["loss"] != first["after"]["loss"]
    steps = [int(row["step"]) for row in rows(longer)]
    assert steps == sorted(steps) and [int(row["step"]) for row in rows(longer) if row["val/loss"]] == [0, 9, 18, 27]
    assert json.loads(longer.paths.metrics.read_text())["steps"] == 27
    assert "step=27.ckpt" in {path.name for path in run.paths.checkpoints.iterdir()}


def test_a_run_that_stopped_early_is_complete_until_more_is_asked_for(folder):
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.min_delta=100", "trainer.max_epochs=5")
    options = ("run.name=early", *stopping, "callbacks.early_stopping.patience=1")
    run, first = train(folder, *options)
    assert first["status"] == "complete" and first["steps"] < 45
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    _, again = train(folder, *options)
    assert again["steps"] == first["steps"]
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
    _, more = train(folder, "run.name=early", "callbacks=none", "trainer.max_epochs=5")
    assert more["steps"] == 45


def test_debug_fast_is_five_steps(folder):
    run, result = train(folder, "run.name=fast", "debug=fast")
    assert result["status"] == "complete" and result["steps"] == 5
    trained = [row for row in rows(run) if row["train/loss"]]
    assert [int(row["step"]) for row in trained] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("overrides", [("trainer.max_steps=4",), ("trainer.check_val_every_n_epoch=5",)])
def test_a_run_ends_with_a_validation_whatever_came_before(overrides, folder):
    run, result = train(folder, f"run.name=late{overrides[0][-1]}", "validate_before=false", *overrides)
    assert result["before"] is None
    assert torch.load(run.paths.checkpoints / "best.ckpt", weights_only=True)["global_step"] == result["steps"]
    assert result["after"]["targets"] > 0 and result["best"] == {"step": result["steps"], **result["after"]}


def test_training_without_validation(folder):
    run, result = train(folder, "run.name=blind", "data.validation_fraction=0", "data.probes=['the [MASK] fox']")
    assert result["status"] == "complete" and (result["before"], result["after"], result["best"]) == (None,) * 3
    assert list(result["data"]) == ["train"] and run.paths.report.is_file()
    assert {path.name for path in run.paths.checkpoints.glob("*.ckpt")} == {"step=12.ckpt", "step=24.ckpt", "last.ckpt"}


def test_the_same_command_gives_the_same_model(finished, folder):
    run, result = finished
    other, again = train(folder, "run.name=again", "data.probes=['the [MASK] fox']")
    weights, others = (load_file(each.paths.model / "model.safetensors") for each in (run, other))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert numbers(again) == numbers(result) and rows(other) == rows(run)
    _, different = train(folder, "run.name=seed", "seed=2")
    assert different["after"]["loss"] != result["after"]["loss"]


def test_evaluating_a_run_gives_its_own_numbers(finished, folder):
    run, result = finished
    config = recorded_config(run.folder, {**tiny(folder), "run": str(run.folder)}, [])
    scores = evaluate(config)["validation"]
    assert_same_scores(scores, result["after"])


def test_a_run_answers_prompts(finished, folder):
    run, _ = finished
    config = recorded_config(run.folder, {**tiny(folder), "run": str(run.folder)}, [])
    answers = predict(config, ["the [MASK] fox", "a [MASK] [MASK]"])
    assert [len(answer["fills"]) for answer in answers] == [1, 2]
    last = json.loads(run.paths.samples.read_text().splitlines()[-1])
    assert last["stage"] == "after"
    ((found,), (expected,)) = answers[0]["fills"], last["fills"]
    assert [fill["token"] for fill in found] == [fill["token"] for fill in expected]
    assert_close(*([fill["probability"] for fill in fills] for fills in (found, expected)))


def test_what_is_prepared_is_not_tokenised_again(tmp_path, monkeypatch):
    ledger = prepare(tiny(tmp_path))
    monkeypatch.setattr("lmft.data.tokenised.tokenise_source", None)
    monkeypatch.setattr("lmft.models.loading.tokenizer.train_vocabulary", None)
    _, result = train(tmp_path, "run.name=prepared", "trainer.max_steps=1", "data.block_size=16", "seed=5")
    assert result["data"]["train"]["tokens"] == ledger["train"]["tokens"]


# how long a training is


@pytest.mark.parametrize(
    ("overrides", "devices", "steps"),
    [
        ((), 1, 18),
        (("trainer.max_epochs=3",), 1, 27),
        (("trainer.accumulate_grad_batches=2",), 1, 10),
        (("trainer.accumulate_grad_batches=100",), 1, 2),
        (("trainer.max_steps=7",), 1, 7),
        (("trainer.max_steps=700",), 1, 18),
        (("trainer.max_steps=700", "trainer.max_epochs=-1"), 1, 700),
        (("trainer.max_steps=700", "trainer.max_epochs=null"), 1, 700),
        (("trainer.limit_train_batches=4",), 1, 8),
        (("trainer.limit_train_batches=0.5",), 1, 8),
        (("data.batch_size=2",), 2, 18),
        ((), 4, 6),
    ],
)
def test_the_learning_rate_counts_in_optimizer_steps(overrides, devices, steps, folder):
    config = tiny(folder, *overrides)
    assert min(assemble(config).step_limits(devices).values()) == steps


@pytest.mark.parametrize("overrides", [("trainer.accumulate_grad_batches=2",), ("trainer.max_epochs=-1",)])
def test_as_many_steps_are_made_as_the_learning_rate_counts(overrides, folder):
    run, result = train(folder, f"run.name=counted{overrides[0][-1]}", "trainer.max_steps=10", *overrides)
    assert result["steps"] == 10
    assert float([row for row in rows(run) if row["lr"]][-1]["lr"]) == 0, "the schedule ends where training does"


# mistakes


def test_a_training_without_an_end_is_refused(folder):
    said = refused(folder, "trainer.max_epochs=-1")
    assert "nothing ends this training" in said and "trainer.max_epochs=3" in said


def test_fewer_examples_than_devices_are_refused(folder):
    said = refused(folder, "data.max_train_examples=1", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert "makes 1 example, fewer than the 2 devices" in said and "trainer.devices=1" in said


def test_fewer_examples_than_a_batch_are_one_small_batch(folder, caplog):
    _, result = train(folder, "data.batch_size=64", "run.name=small-batch", "trainer.max_epochs=2")
    assert "34 examples, fewer than one batch of 64" in caplog.text
    assert (result["steps"], result["epochs"]) == (2, 2)


def test_an_accelerator_that_is_not_there_is_refused(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "trainer.accelerator=gpu" in refused(folder, "trainer=gpu")


def test_an_impossible_objective_is_refused(folder):
    assert "objective.mlm_probability=1.5" in refused(folder, "objective.mlm_probability=1.5")


def test_a_mistyped_config_key_is_refused(folder):
    said = refused(folder, "model.config.n_layer=3")
    assert "model.config.n_layer" in said and "did you mean 'n_layers'?" in said


def test_heads_that_do_not_divide_the_width_are_refused(folder):
    assert "distilbert cannot be built" in refused(folder, "model.config.n_heads=5")


def test_an_evaluation_without_validation_text_is_refused(folder):
    with pytest.raises(UserError, match="no validation text"):
        evaluate(tiny(folder, "data.validation_fraction=0"))


def test_an_error_is_no_mistake_and_leaves_the_run_failed(folder, monkeypatch):
    def breaks(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("lmft.assembly.exporting.export", breaks)
    config = tiny(folder, "run.name=broken", "trainer.max_steps=2")
    run = Run(config)
    with pytest.raises(RuntimeError, match="a bug"):
        module.fit(config, run)
    assert json.loads(run.paths.metrics.read_text())["status"] == "failed"
    assert "a bug" in run.paths.log.read_text()


def test_what_is_warned_of_before_there_is_a_log_stands_in_it(folder, monkeypatch):
    def warns(*asked, **options):
        logging.getLogger("lmft").warning("logged early")
        warnings.warn("warned early", stacklevel=1)
        return assemble(*asked, **options)

    monkeypatch.setattr("lmft.assembly.assemble", warns)
    with pytest.warns(UserWarning, match="warned early"):
        run, _ = train(folder, "run.name=warned", "trainer.max_steps=2", "validate_before=false")
    log = run.paths.log.read_text()
    assert log.index("WARNING lmft: logged early\n") < log.index("UserWarning: warned early") < log.index("\nconfig")
    with pytest.warns(UserWarning, match="warned early"):
        train(folder, "run.name=warned", "trainer.max_steps=4", "validate_before=false")
    assert run.paths.log.read_text().startswith(log), "a run that continues appends"


def test_an_evaluation_tells_which_options_of_the_trainer_it_does_not_read(finished, caplog):
    from lmft.commands.evaluate import checked_config
    from lmft.config.load import compose

    run, _ = finished
    given = [f"run={run.folder}", "trainer=cpu", "trainer.max_steps=3", "+trainer.max_time=00:00:01:00"]
    given += ["trainer.limit_val_batches=1", "trainer.precision=32-true"]
    checked_config(compose(given, "evaluate"), given)
    told = [record.getMessage() for record in caplog.records if "does not read" in record.getMessage()]
    assert told == [f"an evaluation does not read {each}" for each in given[2:4]]
