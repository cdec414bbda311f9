"""Rows 4, 5, 13 and 14: checkpoints that cannot be written, are damaged, of another training, or not there."""

import os
import subprocess

import pytest

from lmft.runs.checkpoint_io import read
from lmft.runs.checkpoints import checksum_file
from lmft.runs.folder import RunFolder
from lmft.system.files import read_json
from tests.helpers.faults import fill_disk
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, train

pytestmark = pytest.mark.timeout(120)

OPTIONS = ("model.config.dropout=0.3", "checkpoint.every_n_steps=1", "checkpoint.keep_last=4")


@pytest.fixture(scope="module")
def undisturbed(place):
    """A run that nothing happens to."""
    return train(place, "run.name=undisturbed", *OPTIONS)[0]


@pytest.fixture(scope="module")
def kept(place, undisturbed):
    """What was left of a run that was killed in its seventh step."""
    kill_in_training(place, 6, "run.name=killed", *OPTIONS)
    return (place / "runs" / "killed").rename(place / "kept")


@pytest.fixture
def terminal(shared_terminal):
    return shared_terminal


@pytest.fixture
def killed(terminal, kept):
    """The folder of that run, anew for each test."""
    folder = terminal.folder / "runs" / "killed"
    subprocess.run(["cp", "-a", kept, folder], check=True)  # a file of two names stays one
    return RunFolder(folder)


def assert_goes_on(terminal, undisturbed):
    """The same command ends as if nothing had been."""
    out = terminal.trains("run.name=killed", *OPTIONS)
    resumed = terminal.ended("killed")
    assert_same(resumed, undisturbed)
    assert numbers(read_json(resumed.paths.metrics)) == numbers(read_json(undisturbed.paths.metrics))
    return out


def steps_in(folder):
    return sorted(int(path.stem.removeprefix("step=")) for path in folder.glob("step=*.ckpt"))


def test_fault_04_on_a_full_disk_older_checkpoints_make_room(terminal, killed, undisturbed, monkeypatch):
    fill_disk(killed.checkpoints, monkeypatch, free_bytes=1000)
    out = assert_goes_on(terminal, undisturbed)
    said = "the disk is full: step=3.ckpt, step=4.ckpt, step=5.ckpt removed to make room for step=7.ckpt"
    assert said in out + killed.log.read_text()


def test_fault_04_on_a_disk_that_stays_full_the_run_ends_in_three_lines_and_can_be_resumed(
    terminal, killed, undisturbed
):
    with pytest.MonkeyPatch().context() as patched:
        for step in (3, 4, 5):
            (killed.checkpoints / f"step={step}.ckpt").unlink()
        fill_disk(killed.checkpoints, patched, free_bytes=1000)
        said = terminal.fails("run.name=killed", *OPTIONS)
    assert "the disk is full: step=7.ckpt could not be written" in said
    assert "free some space; the same command resumes from last.ckpt" in said
    assert read(killed.checkpoints / "last.ckpt")["global_step"] == 6
    assert_goes_on(terminal, undisturbed)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 5000), flip], ids=["truncated", "a bit flipped"])
def test_fault_05_a_broken_checkpoint_is_named_and_passed_over(damage, terminal, killed, undisturbed):
    damage(killed.checkpoints / "last.ckpt")  # and with it step=6.ckpt, another name of the same file
    out = assert_goes_on(terminal, undisturbed)
    for line in ("last.ckpt is broken", "step=6.ckpt is broken", "resuming from step=5.ckpt"):
        assert line in killed.log.read_text() and line.partition(" ")[0] in out


def test_fault_05_a_run_without_a_valid_checkpoint_is_refused(terminal, killed):
    for name in ("last", "step=3", "step=4", "step=5"):
        flip(killed.checkpoints / f"{name}.ckpt")
    said = terminal.refuses_to_train("run.name=killed", *OPTIONS)
    assert "no checkpoint is valid" in said and "step=3.ckpt is broken" in said and "resume=PATH" in said


def test_fault_13_settings_that_do_not_fit_the_checkpoint_are_refused(terminal, killed):
    for changed, said in {
        "optimizer.lr=0.5": "optimizer.lr: 0.003 → 0.5",
        "seed=2": "seed: 1 → 2",
        "model.config.dropout=0.1": "model.config.dropout: 0.3 → 0.1",
        "objective.mlm_probability=0.5": "objective.mlm_probability: 0.3 → 0.5",
        "data.validation_fraction=0.5": "data.validation_fraction: 0.2 → 0.5",
    }.items():
        assert said in terminal.refuses_to_train("run.name=killed", *OPTIONS, changed)


@pytest.mark.parametrize(
    ("changed", "lines", "said"),
    [
        ("data.batch_size=8", "", "an optimizer step has 8 examples, in the checkpoint 4"),
        ("seed=1", "one line more\n", "the training text, as tokenised, is not the one of the checkpoint"),
    ],
    ids=["larger steps", "more text"],
)
def test_fault_13_other_steps_and_another_text_are_refused(changed, lines, said, terminal, killed, undisturbed):
    text = terminal.folder / "text.txt"
    before = text.read_text()
    text.write_text(before + lines)
    assert said in terminal.fails("run.name=killed", *OPTIONS, changed)
    text.write_text(before)
    assert_goes_on(terminal, undisturbed)


def test_fault_13_settings_that_may_change_are_named(terminal, killed):
    out = terminal.trains("run.name=killed", *OPTIONS, "trainer.log_every_n_steps=1", "checkpoint.keep_last=1")
    for change in ("trainer.log_every_n_steps: 10 → 1", "checkpoint.keep_last: 4 → 1"):
        assert f"changed since this run was started: {change}" in out + killed.log.read_text()


def test_fault_14_without_last_ckpt_the_newest_is_taken_and_named(terminal, killed, undisturbed):
    for path in (killed.checkpoints / "last.ckpt", checksum_file(killed.checkpoints / "last.ckpt")):
        path.unlink()
    out = assert_goes_on(terminal, undisturbed)
    assert "last.ckpt is missing; resuming from step=6.ckpt" in out + killed.log.read_text()


def test_fault_14_resume_must_without_a_checkpoint_is_refused(terminal, killed):
    for path in killed.checkpoints.iterdir():
        path.unlink()
    said = terminal.refuses_to_train("run.name=killed", *OPTIONS, "resume=must")
    assert "no checkpoint in" in said and "resume=auto starts from the beginning" in said
