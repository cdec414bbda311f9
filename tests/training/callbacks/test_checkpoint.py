from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from lmft.errors import UserError
from lmft.runs.checkpoint_io import AtomicCheckpointIO
from lmft.runs.checkpoints import BEST, LAST, checksum, checksum_file, is_valid
from lmft.training.callbacks.checkpoint import Checkpoints
from tests.helpers.closeness import assert_close
from tests.helpers.runs import train


class Scripted(BoringModel):
    """64 batches an epoch; its validation losses are given; None: there is nothing to validate on."""

    def __init__(self, losses):
        super().__init__()
        self.losses = None if losses is None else iter(losses)

    def val_dataloader(self):
        return [] if self.losses is None else super().val_dataloader()

    def validation_step(self, batch, batch_idx):
        return None

    def on_validation_epoch_end(self):
        self.log("val/loss", next(self.losses))


def fitted(folder, losses=(3.0, 1.0, 2.0, 1.5), every_n_steps=100, keep_last=2, max_disk_gb=None, **options):
    """The checkpoints of one epoch of 8 steps, validated after 2, 4, 6 and 8."""
    checkpoints = Checkpoints(folder / "checkpoints", every_n_steps, keep_last, max_disk_gb)
    trainer = Trainer(
        **{"max_epochs": 1, "limit_train_batches": 8, "limit_val_batches": 1, "val_check_interval": 2, **options},
        accelerator="cpu",
        callbacks=[checkpoints],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=folder,
    )
    trainer.fit(Scripted(losses))
    return checkpoints.folder


def steps_in(folder):
    return sorted(int(path.stem.removeprefix("step=")) for path in folder.glob("step=*.ckpt"))


def step_of(path):
    return torch.load(path, weights_only=True)["global_step"]


def all_whole(folder):
    """The checkpoints in a folder, which holds nothing else; each loads and has the content that its checksum tells."""
    paths = sorted(folder.glob("*.ckpt"))
    for path in paths:
        assert checksum_file(path).read_text() == checksum(path), path
        torch.load(path, weights_only=True)
    assert sorted(folder.iterdir()) == sorted([*paths, *map(checksum_file, paths)])
    return [path.name for path in paths]


def test_the_newest_and_the_best_are_kept(tmp_path):
    folder = fitted(tmp_path, every_n_steps=3, keep_last=2)
    assert all_whole(folder) == [BEST, LAST, "step=6.ckpt", "step=8.ckpt"]
    assert (step_of(folder / LAST), step_of(folder / BEST)) == (8, 4)


def test_all_are_kept(tmp_path):
    folder = fitted(tmp_path, every_n_steps=3, keep_last=-1)
    assert steps_in(folder) == [2, 3, 4, 6, 8]  # 2 and 4 were the best so far, 8 is the end
    all_whole(folder)


def test_none_is_kept(tmp_path):
    folder = fitted(tmp_path, every_n_steps=1, keep_last=0)
    assert not folder.exists() and list(tmp_path.iterdir()) == []


def test_without_validation(tmp_path):
    folder = fitted(tmp_path, every_n_steps=5, keep_last=-1, limit_val_batches=0)
    assert steps_in(folder) == [5, 8] and LAST in all_whole(folder)
    assert not (folder / BEST).exists()


def test_without_validation_text_nothing_waits_for_a_validation(tmp_path):
    folder = fitted(tmp_path, every_n_steps=2, keep_last=-1, losses=None)
    assert steps_in(folder) == [2, 4, 6, 8]


def test_training_that_is_cut_short_saves_its_end(tmp_path):
    folder = fitted(tmp_path, keep_last=1, max_steps=5)
    assert all_whole(folder) == [BEST, LAST, "step=5.ckpt"] and step_of(folder / LAST) == 5


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_never_the_best(tmp_path, loss):
    folder = fitted(tmp_path, losses=[loss, 5.0, loss, loss])
    assert step_of(folder / BEST) == 4


def test_amid_an_accumulated_step_only_the_best_is_saved(tmp_path):
    """Such a checkpoint has lost the gradients so far: no training is to go on from it."""
    folder = fitted(tmp_path, every_n_steps=1, keep_last=-1, accumulate_grad_batches=4, losses=[1.0, 2.0, 3.0, 4.0])
    assert steps_in(folder) == [1, 2]
    assert step_of(folder / BEST) == 0  # validated after two of the first step's four micro-batches
    all_whole(folder)


def test_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    folder = fitted(tmp_path, keep_last=1)
    assert all_whole(folder) == [BEST, LAST, "step=8.ckpt"]
    assert (step_of(folder / LAST), step_of(folder / BEST)) == (8, 4)


def test_under_a_budget_only_the_newest_and_the_best_are_kept(tmp_path):
    """The best and last.ckpt take it up already: of all others only the newest stays."""
    folder = fitted(tmp_path, every_n_steps=1, keep_last=-1, max_disk_gb=1e-9)
    assert all_whole(folder) == [BEST, LAST, "step=4.ckpt", "step=8.ckpt"]
    assert (step_of(folder / LAST), step_of(folder / BEST)) == (8, 4)


def test_a_training_whose_save_fails_leaves_whole_checkpoints(tmp_path, monkeypatch):
    save = torch.save

    def fails_at_step_6(checkpoint, file):
        if checkpoint["global_step"] == 6:
            raise OSError("the disk is gone")
        save(checkpoint, file)

    monkeypatch.setattr("torch.save", fails_at_step_6)
    with pytest.raises(UserError, match=r"step=6\.ckpt could not be written"):
        fitted(tmp_path, every_n_steps=3)
    folder = tmp_path / "checkpoints"
    assert all_whole(folder) == [BEST, LAST, "step=3.ckpt", "step=4.ckpt"]
    assert step_of(folder / LAST) == step_of(folder / BEST) == 4


def test_last_and_best_are_valid_whenever_the_process_dies(tmp_path, monkeypatch):
    """Looked at before and after each file is moved to its place."""
    replace, moved = Path.replace, []

    def whole(folder):
        return all(is_valid(folder / name) for name in (LAST, BEST) if (folder / name).exists())

    def looking(self, target):
        assert whole(target.parent)
        moved.append(replace(self, target).name)
        assert whole(target.parent)
        return target

    monkeypatch.setattr(Path, "replace", looking)
    fitted(tmp_path)
    assert {LAST, BEST} <= set(moved)


def test_resuming_keeps_the_mark_and_cuts_the_growing_files(tmp_path):
    grown, new = tmp_path / "metrics.csv", tmp_path / "samples.jsonl"
    grown.write_text("old\n")
    state = Checkpoints(tmp_path, 1, 1, appended_files=[grown, new]).state_dict()
    grown.write_text("old\nlater\n")
    new.write_text("later\n")
    resumed = Checkpoints(tmp_path, 1, 1, appended_files=[grown, new])
    resumed.load_state_dict({**state, "best_loss": 1.25})
    assert resumed.best_loss == 1.25
    assert grown.read_text() == "old\n" and new.read_text() == ""
    grown.write_text("")
    resumed.load_state_dict(state)
    assert grown.read_text() == "", "a file that is shorter than it was is left as it is"


def test_a_runs_checkpoints(finished):
    run, result = finished
    folder = run.paths.checkpoints
    assert all_whole(folder) == [BEST, LAST, "step=18.ckpt", "step=9.ckpt"]
    last = torch.load(folder / LAST, weights_only=True)
    assert last["global_step"] == result["steps"] == 18
    assert_close(last["callbacks"]["Checkpoints"]["best_loss"], result["best"]["loss"], 1)


def test_a_run_without_checkpoints(folder):
    run, result = train(folder, "run.name=unsaved", "checkpoint.keep_last=0", "trainer.max_epochs=1")
    assert result["status"] == "complete" and run.paths.model.is_dir()
    assert not run.paths.checkpoints.exists()
