"""The files that start a training on several devices, with two processes on CPUs; and the page of sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scaling
from tests.helpers.runs import CHECKOUT, tiny_arguments

LAUNCH = CHECKOUT / "docs" / "launch"
SRUN = """#!/usr/bin/env bash
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 SLURM_JOB_NAME=lmft "$@" &
  started="$started $!"
done
for process in $started; do wait "$process" || exit 1; done
"""
SLURM = {"SLURM_JOB_ID": "77123", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NUM_NODES": "1"}
SLURM |= {"SLURM_NODELIST": "localhost"}


def trained(tmp_path, *command, **further):
    """The number of processes of a tiny training that a command starts."""
    arguments = [each for each in tiny_arguments(tmp_path, "gpt2_tiny") if each != "trainer=cpu"]
    arguments += ["run.name=launched", "data.batch_size=2", "trainer.max_steps=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT), **further}
    environment["PATH"] = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    ended = subprocess.run(
        [*command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    run = tmp_path / "runs" / "launched"
    assert json.loads((run / "metrics.json").read_text())["steps"] == 2 and (run / "model").is_dir()
    return int(json.loads((run / "setup.json").read_text())["environment"]["world_size"])


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_torchrun(tmp_path):
    assert trained(tmp_path, "bash", LAUNCH / "torchrun.sh", "2", "trainer.accelerator=cpu") == 2


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_slurm(tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    assert trained(tmp_path, "bash", LAUNCH / "slurm.sh", "trainer.accelerator=cpu", **SLURM) == 2


@pytest.mark.slow
@pytest.mark.timeout(320)
def test_ray_train(tmp_path):
    pytest.importorskip("ray.train")
    further = {"CPUS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    assert trained(tmp_path, sys.executable, LAUNCH / "ray_train.py", "2", **further) == 2


# the page of sizes


def test_its_tables_are_those_of_the_program():
    assert scaling.tables() in scaling.PAGE.read_text("utf-8")


def test_sizes_of_models_that_are_known():
    found = [model.weights / 1e9 for model in scaling.MODELS]
    assert found == pytest.approx([0.124, 1.71, 8.03], rel=0.01)


def test_shared_weights_take_a_share_of_the_memory():
    model = scaling.MODELS[-1]
    ddp, fsdp2, _ = scaling.WAYS
    assert ddp.memory(model, 8) == 16 * model.weights
    in_use = 8 * (2 * model.layer + model.outside)
    assert fsdp2.memory(model, 8) == pytest.approx(2 * model.weights + in_use)
    assert fsdp2.messages(model)[0] < 12 * model.weights
