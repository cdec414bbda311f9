"""Branches: new runs that begin where another run was."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lmft.errors import UserError
from lmft.runs.run import Run
from tests.helpers.processes import kill_in_training
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, rows, tiny, train, write_text

CONSTANT = ("scheduler=constant_with_warmup", "scheduler.warmup=0")
OPTIONS = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", "trainer.log_every_n_steps=1", "model.probes=[]")


@pytest.fixture(scope="module")
def parent(folder):
    """A run of five steps at a constant rate; an epoch has nine."""
    return train(folder, "run.name=parent", *OPTIONS, *CONSTANT, "trainer.max_steps=5")[0]


def branch(folder, parent, name, *options):
    return train(folder, f"run.name={name}", f"resume={parent.folder}", "branch=true", *OPTIONS, *options)


def check(folder, *options):
    """The checks of a command before torch is loaded."""
    Run(tiny(folder, *options), arguments=()).check_settings()


def weights_of(run):
    return load_file(run.paths.model / "model.safetensors")


def losses_of(run):
    return [row["train/loss"] for row in rows(run) if row["train/loss"]]


def log_of(run):
    return run.paths.log.read_text()


def test_a_branch_trains_as_its_parent_would_have(parent, folder):
    whole, _ = train(folder, "run.name=whole-of-branch", *OPTIONS, *CONSTANT, "trainer.max_steps=12")
    second, result = branch(folder, parent, "second", *CONSTANT, "trainer.max_steps=7")
    found, expected = weights_of(second), weights_of(whole)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert losses_of(second) == losses_of(whole)[5:]
    assert result["steps"] == 7
    checksum = (parent.paths.checkpoints / "last.ckpt.xxh3").read_text()
    assert result["parent"] == {
        "name": "parent",
        "step": 5,
        "checksum": checksum,
        "checkpoint": str(parent.paths.checkpoints / "last.ckpt"),
    }
    said = f"a branch of parent, from its step 5 ({checksum})"
    assert said in second.paths.report.read_text() and said in (second.paths.model / "README.md").read_text()
    assert "other than in its parent: trainer.max_steps: 5 → 7" in log_of(second)


def test_a_killed_branch_resumes_itself_bit_for_bit(parent, folder):
    options = ("scheduler=cosine", "trainer.max_steps=6", "model.config.dropout=0.1", "objective.mlm_probability=0.2")
    whole, expected = branch(folder, parent, "undisturbed", *options)
    named = ("run.name=killed", f"resume={parent.folder}", "branch=true", *OPTIONS, *options)
    kill_in_training(folder, 3, *named)
    resumed, result = train(folder, *named)
    assert resumed.origin is None and resumed.checkpoint == resumed.paths.checkpoints / "last.ckpt"
    assert_same(resumed, whole)
    assert numbers(result) == numbers(expected)
    complete, again = train(folder, *named)
    assert again["parent"] == result["parent"] and complete.checkpoint is None


def test_a_branch_from_a_certain_checkpoint(parent, folder):
    checkpoint = parent.paths.checkpoints / "step=2.ckpt"
    options = ("run.name=early", "branch=true", *OPTIONS, *CONSTANT, "trainer.max_steps=3")
    early, result = train(folder, f"resume={checkpoint}", *options)
    assert result["parent"]["step"] == 2
    found, expected = weights_of(early), weights_of(parent)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    other = parent.paths.checkpoints / "step=3.ckpt"
    with pytest.raises(UserError, match="'early' is a branch of step 2 of parent"):
        check(folder, f"resume={other}", *options)


def test_other_text_begins_anew_and_the_optimizer_goes_on(parent, folder, tmp_path):
    text = write_text(tmp_path / "other.txt", 50)
    run, _ = branch(folder, parent, "other-text", *CONSTANT, "trainer.max_steps=2", f"data.train={text}")
    assert (
        "training text, examples or seed differ from the parent's: this run starts at the beginning of the text"
        in log_of(run)
    )
    assert "the optimizer continues with its parent's state of" in log_of(run)
    saved = torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True)
    assert saved["DataModule"]["began_at"] == [0, 0]
    assert {float(state["step"]) for state in saved["optimizer_states"][0]["state"].values()} == {7.0}


def test_larger_batches_continue_in_the_text(parent, folder):
    run, _ = branch(folder, parent, "larger", *CONSTANT, "trainer.max_steps=2", "data.batch_size=8")
    assert "the training text continues in epoch 0, after 3 micro-batches" in log_of(run)


def test_another_optimizer_begins_anew(parent, folder):
    run, _ = branch(folder, parent, "sgd", *CONSTANT, "trainer.max_steps=2", "optimizer=sgd")
    assert (
        "the optimizer starts without the parent's state: it was torch.optim.AdamW, and is torch.optim.SGD"
        in log_of(run)
    )
    run, _ = branch(folder, parent, "amsgrad", *CONSTANT, "trainer.max_steps=2", "+optimizer.amsgrad=true")
    assert "its state depends on amsgrad" in log_of(run)


def test_longer_context_keeps_the_rows_that_there_are(parent, folder):
    longer = ("model.config.max_position_embeddings=600", "data.block_size=64")
    run, _ = branch(folder, parent, "longer", *CONSTANT, "trainer.max_steps=1", "optimizer.lr=0", *longer)
    name = "distilbert.embeddings.position_embeddings.weight"
    table = weights_of(run)[name]
    assert torch.equal(table[:512], weights_of(parent)[name]) and len(table) == 600
    assert f"model.{name} has 600 rows, in the parent 512: the first 512 are the parent's" in log_of(run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("model.config.dim=64",), "a branch keeps its parent's vocabulary and architecture: model.config.dim: 32"),
        (("model.tokenizer.vocab_size=90",), "model.tokenizer.vocab_size: 120 → 90"),
        (("model.freeze=[embeddings]",), "model.freeze"),
    ],
)
def test_what_a_branch_must_keep(options, said, parent, folder):
    with pytest.raises(UserError) as error:
        branch(folder, parent, "changed", *CONSTANT, *options)
    assert said in error.value.what
    assert error.value.fix and "objective, optimizer, scheduler" in error.value.fix
    assert not (folder / "runs" / "changed").exists()


def test_branches_that_could_not_begin(parent, folder):
    with pytest.raises(UserError, match="begins from another run, and none is named"):
        check(folder, "run.name=none", "branch=true", *OPTIONS)
    with pytest.raises(UserError, match="cannot be a branch of itself"):
        check(folder, "run.name=parent", f"resume={parent.folder}", "branch=true", *OPTIONS, *CONSTANT)
    with pytest.raises(UserError, match="'branch' must be true or false"):
        train(folder, "run.name=none", "branch='yes'", *OPTIONS)
    with pytest.raises(UserError, match="did you mean"):
        check(folder, "run.name=none", f"resume={folder}/runs/parnt", "branch=true", *OPTIONS)
    train(folder, "run.name=unrelated", *OPTIONS, *CONSTANT, "trainer.max_steps=1")
    with pytest.raises(UserError, match="in use by a run that is not a branch"):
        check(folder, "run.name=unrelated", f"resume={parent.folder}", "branch=true", *OPTIONS, *CONSTANT)


def test_a_branch_without_a_checkpoint_does_not_begin_from_the_model(parent, folder):
    options = (*OPTIONS, *CONSTANT, "trainer.max_steps=2", "checkpoint.every_n_steps=100")
    named = ("run.name=unsaved-parent", f"resume={parent.folder}", "branch=true", *options)
    kill_in_training(folder, 1, *named)
    with pytest.raises(UserError, match="has saved no checkpoint yet"):
        train(folder, "run.name=unsaved-parent", *options)
    run, _ = train(folder, *named)
    assert run.origin is not None
    assert json.loads(run.paths.parent.read_text())["step"] == 5


def test_the_refusal_of_other_settings_names_the_branch(parent, folder):
    with pytest.raises(UserError) as error:
        train(folder, "run.name=parent", *OPTIONS, "scheduler=cosine", "trainer.max_steps=9")
    assert "resume=RUN branch=true" in str(error.value.fix)
