"""Sizes that are known before a training, against those that its optimizer and its folder have."""

from collections import namedtuple
from pathlib import Path

import pytest
import torch

from lmft.assembly import make_optimizer
from lmft.assembly.optimizer import grouping_of
from lmft.config.load import compose
from lmft.preflight import sizes
from lmft.training.groups import parameter_groups
from tests.helpers.models import tiny_model

USAGE = namedtuple("USAGE", "total used free")
OPTIONS = {"every_n_steps": 500, "keep_last": 2, "max_disk_gb": None}


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "muon", "sgd", "stable_adamw"])
@pytest.mark.parametrize("architecture", ["distilbert", "gpt2"])
def test_the_state_of_an_optimizer_has_the_bytes_that_small_weights_tell(optimizer, architecture, tokenizer):
    if optimizer in ("lion", "stable_adamw"):
        pytest.importorskip("optimi")
    model = tiny_model(architecture, tokenizer)
    config = compose([f"optimizer={optimizer}"])
    make = make_optimizer(config)
    groups = parameter_groups(model, grouping_of(config, make))
    told = sizes.state_bytes(make, groups, torch.device("cpu"))
    made = make(groups)
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    made.step()
    assert told == sum(sizes.bytes_of_state(made, weight) for weight in model.parameters())


def needed(free=10**12, monkeypatch=None, num_checkpoints=100, **options):
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: USAGE(free, 0, free))
    return sizes.disk_facts(Path("nowhere"), 100, 10, {**OPTIONS, **options}, num_checkpoints, weights=30)


def test_what_a_run_needs_of_the_disk_follows_from_how_many_checkpoints_are_kept(monkeypatch):
    def of(**changes):
        return needed(monkeypatch=monkeypatch, **changes)["needed_bytes"]

    assert of() == 4 * 100 + 10  # two, the best, one that is being written, and model/
    assert of(num_checkpoints=1) == 100 + 10
    assert of(keep_last=0) == 30 + 10  # the best weights until the export
    assert of(keep_last=-1, num_checkpoints=7) == 7 * 100 + 10
    assert of(keep_last=-1, max_disk_gb=3e-7) == 300 + 100 + 10


def test_a_disk_that_is_too_small_is_warned_of_and_a_large_one_is_not(monkeypatch):
    assert sizes.short_of_disk(needed(410, monkeypatch)) is None
    finding = sizes.short_of_disk(needed(409, monkeypatch))
    assert finding is not None and finding.name == "disk" and "checkpoint.keep_last=1" in finding.fix


def test_what_an_earlier_start_has_written_is_no_further_need(tmp_path, monkeypatch):
    monkeypatch.setattr(sizes.shutil, "disk_usage", lambda path: USAGE(100, 50, 50))
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "last.ckpt").write_bytes(b"0" * 300)
    (folder / "best.ckpt").hardlink_to(folder / "last.ckpt")
    assert sizes.disk_facts(folder, 100, 10, OPTIONS, 100, 30)["free_bytes"] == 350


def test_files_that_another_process_deletes_meanwhile_are_passed_over(tmp_path, monkeypatch):
    (tmp_path / "stays").write_bytes(b"123")
    walked = [(str(tmp_path), ["gone"], ["stays", "gone.writing"])]
    monkeypatch.setattr("os.walk", lambda _: iter(walked))
    assert sizes._taken(tmp_path) == 3
