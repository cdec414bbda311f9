"""Runs that are cut off and resumed, and whether they are the same to the bit."""

import shutil

import torch
from safetensors.torch import load_file

from lmft.runs.folder import RunFolder
from tests.helpers.runs import rows

COMMON = (
    "model.config.dropout=0.1",
    "model.config.attention_dropout=0.1",
    "checkpoint.every_n_steps=1",
    "checkpoint.keep_last=-1",
    "trainer.log_every_n_steps=3",
    "data.probes=['the [MASK] fox']",
)


def cut(whole_run, name, step):
    """Makes a run's folder as it was when the process was killed some time after this step was saved."""
    folder = RunFolder(whole_run.folder.with_name(name))
    shutil.copytree(whole_run.folder, folder.path)
    folder.metrics.unlink()
    folder.report.unlink()
    folder.details.unlink()
    shutil.rmtree(folder.model)
    for path in folder.checkpoints.glob("*.ckpt*"):
        if not path.name.startswith("step=") or int(path.name.split(".")[0].removeprefix("step=")) > step:
            path.unlink()
    for ending in ("", ".xxh3"):
        shutil.copy(folder.checkpoints / f"step={step}.ckpt{ending}", folder.checkpoints / f"last.ckpt{ending}")


def assert_equal(found, expected):
    """Of values from a checkpoint: tensors to the bit, and all else."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected) and found.dtype == expected.dtype
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


def assert_same(found, expected):
    """Of two runs: the exported weights, all of the last checkpoint that training reads, rows and answers."""
    weights, others = (load_file(run.paths.model / "model.safetensors") for run in (found, expected))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    last, wanted = (torch.load(run.paths.checkpoints / "last.ckpt", weights_only=True) for run in (found, expected))
    for name in ("optimizer_states", "lr_schedulers", "global_step"):
        assert_equal(last[name], wanted[name])
    assert rows(found) == rows(expected)
    details = [run.paths.details.read_text() if run.paths.details.exists() else None for run in (found, expected)]
    assert details[0] == details[1]
    assert found.paths.samples.read_text() == expected.paths.samples.read_text()
