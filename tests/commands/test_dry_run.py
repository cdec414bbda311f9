"""`run.dry=true`: what a training will take, as it then takes it; nothing is written but the cache."""

import json
import re

import pytest

from lmft import api
from lmft.assembly import dry_run
from lmft.runs.folder import RunFolder
from tests.helpers.processes import Terminal, contents
from tests.helpers.runs import rows, tiny, tiny_arguments, train, write_text

DRY = "run.dry=true"


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LMFT_CACHE", str(tmp_path / "cache"))
    write_text(tmp_path / "text.txt", 120)
    return Terminal(tmp_path, capsys)


def dry(terminal, *overrides):
    return terminal.succeeds("train", *tiny_arguments(terminal.folder), DRY, *overrides)


def test_it_says_what_the_training_will_take_and_writes_nothing(terminal, tmp_path):
    said = dry(terminal, "run.name=x")
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "cache"}
    for line in (
        "parameters: ",
        "positions: 512",
        "time: about ",
        "memory: ",
        "micro-batch: 4, the whole step",
        "disk: ",
    ):
        assert line in said
    assert "of the process, Python and libraries included" in said and "nothing was trained or written" in said


def test_its_numbers_are_those_of_the_training(tmp_path):
    facts = api.train(tiny(tmp_path, DRY, "checkpoint.every_n_steps=7")).metrics["facts"]
    run, result = train(tmp_path, "checkpoint.every_n_steps=7", "checkpoint.keep_last=-1", "run.name=x")
    assert facts["training"]["steps"] == result["steps"] and facts["training"]["epochs"] == result["epochs"]
    assert facts["data"]["tokens_per_epoch"] * 2 == result["train"]["tokens"]
    estimate = facts["estimate"]
    assert estimate["checkpoints"] == len([*run.paths.checkpoints.glob("step=*.ckpt")])
    assert estimate["validations"] == sum(bool(row["val/loss"]) for row in rows(run))
    size = (run.paths.checkpoints / "last.ckpt").stat().st_size
    assert abs(facts["disk"]["checkpoint_bytes"] / size - 1) < 0.15  # Lightning's own entries are 20 KB
    assert facts["disk"]["model_bytes"] <= (run.paths.model / "model.safetensors").stat().st_size
    assert estimate["memory_gb"] > facts["memory"]["fixed_bytes"] / 1e9


def test_a_training_keeps_its_facts_in_its_folder_and_in_its_metrics(tmp_path):
    run, result = train(tmp_path, "run.name=x", "trainer.max_steps=2", "optimizer.lr=0.5")
    facts = json.loads(run.paths.facts.read_text())
    assert json.loads(run.paths.metrics.read_text())["facts"] == facts
    assert [each["name"] for each in facts["warnings"]] == ["learning_rate"]
    assert "optimizer.lr=0.5 is far above what is usual for AdamW" in run.paths.log.read_text()
    assert "estimate" not in facts and result["steps"] == facts["training"]["steps"] == 2


@pytest.mark.parametrize(
    "options",
    [
        ("trainer.val_check_interval=0.5",),
        ("trainer.val_check_interval=5", "trainer.check_val_every_n_epoch=null", "trainer.max_steps=17"),
        ("trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5", "validate_before=false"),
        ("trainer.accumulate_grad_batches=3", "trainer.val_check_interval=4", "checkpoint.every_n_steps=2"),
    ],
)
def test_validations_and_checkpoints_are_counted_as_they_come(tmp_path, options):
    options = (*options, "checkpoint.keep_last=-1")
    estimate = api.train(tiny(tmp_path, DRY, *options)).metrics["facts"]["estimate"]
    run, _ = train(tmp_path, *options, "run.name=x")
    validated = [int(row["step"]) for row in rows(run) if row["val/loss"]]
    steps = {int(path.stem.partition("=")[2]) for path in run.paths.checkpoints.glob("step=*.ckpt")}
    last = max(steps)
    # A validation after the last step that was not due is made for the export; the best is saved where it is.
    due = [step for step in validated if step != last or validated.count(last) > 1]
    assert estimate["validations"] - len(due) in (0, 1)
    assert 0 <= len(steps) - estimate["checkpoints"] <= len(validated)


def test_a_run_that_has_begun_is_estimated_from_its_checkpoint_on(tmp_path):
    run, _ = train(tmp_path, "run.name=x", "trainer.max_epochs=1")
    before = contents(run.folder)
    facts = api.train(tiny(tmp_path, DRY, "run.name=x", "trainer.max_epochs=4")).metrics["facts"]
    assert contents(run.folder) == before
    done = facts["estimate"]["steps_done"]
    assert done == facts["training"]["steps_per_epoch"] and facts["training"]["steps"] == 4 * done
    assert facts["estimate"]["validations"] == facts["estimate"]["checkpoints"] == 3


def test_a_micro_batch_that_does_not_fit_is_split_and_a_smaller_one_suggested(tmp_path, monkeypatch):
    from lmft.modules.base import LanguageModel

    real = LanguageModel.nats

    def nats(module, batch):
        if module.trainer.training and len(batch.inputs["input_ids"]) > 3:
            raise RuntimeError("can't allocate memory")
        return real(module, batch)

    monkeypatch.setattr(LanguageModel, "nats", nats)
    options = ("data.batch_size=12", "trainer.accumulate_grad_batches=2")
    estimate = api.train(tiny(tmp_path, DRY, *options)).metrics["facts"]["estimate"]
    assert estimate["split_into"] == 4 and estimate["largest"] == 3 and estimate["step"] == 24
    from lmft.reporting.facts import estimate_lines

    line = estimate_lines({"estimate": estimate, "disk": api.train(tiny(tmp_path, DRY)).metrics["facts"]["disk"]})[2]
    assert "data.batch_size=3 trainer.accumulate_grad_batches=8 is the same training" in line


def test_a_step_that_is_not_finite_is_refused_and_nothing_is_written(terminal, tmp_path):
    said = terminal.refuses(
        "train", *tiny_arguments(tmp_path), DRY, "optimizer.lr=1e30", "trainer.gradient_clip_val=null"
    )
    assert "the training would fail in step" in said
    assert {path.name for path in tmp_path.iterdir()} == {"text.txt", "cache"}


def test_commands_and_sweeps_that_cannot_be_dry_say_so(terminal):
    for command in ("prepare", "tune"):
        assert f"lmft.{command} does not read run.dry" in terminal.refuses(command, DRY)
    said = terminal.refuses("train", "--multirun", DRY, "seed=1,2")
    assert "run.dry=true estimates one training" in said


def test_several_devices_are_not_measured_and_it_says_so(tmp_path, monkeypatch):
    real = dry_run.try_out

    class Several:
        world_size = 2

        def __init__(self, trainer):
            self.trainer = trainer

        def __getattr__(self, name):
            return getattr(self.trainer, name)

    monkeypatch.setattr(dry_run, "try_out", lambda config: Several(real(config)))
    result = api.train(tiny(tmp_path, DRY))
    assert result.metrics["facts"]["estimate"] is None and "not measured" in repr(result)
    assert result.metrics["facts"]["training"]["examples_per_step"] == 8


def test_its_result_in_python_is_readable(tmp_path):
    result = api.train(tiny(tmp_path, DRY))
    assert re.match(r"DistilBertForMaskedLM, [\d.]+k parameters \| \w+ on .*text\.txt, ", repr(result))
    assert not RunFolder(result.folder).path.exists()
