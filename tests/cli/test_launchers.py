"""Sweeps whose jobs run in other processes, with the real engines."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from lmft import evaluate, train
from lmft.cli.launchers.shares import gpus_of_a_job, shares
from tests.helpers import fake_slurm, sweep_jobs
from tests.helpers.sweep_jobs import SECRET, files_with

ROOT = Path(__file__).parents[2]
LOCAL = ("joblib", "submitit_local")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def sweep(*argv):
    with pytest.raises(SystemExit) as exit:
        sweep_jobs.main(["-m", "run.name=sw", *argv])
    return exit.value.code


def seen(seed):
    return json.loads(Path(f"runs/sw/seed={seed}/seen.json").read_text())


def table():
    with Path("runs/sw/sweep.csv").open(newline="") as file:
        return {row["job"]: row for row in csv.DictReader(file)}


def hidden_files():
    return [path.name for path in Path("runs/sw").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("launcher", LOCAL)
def test_jobs_run_in_other_processes_and_their_ends_are_those_of_a_sweep_in_one(launcher, capfd):
    assert sweep(f"launcher={launcher}", "seed=1,2,13,14") == 1
    lines = capfd.readouterr().out.splitlines()
    assert sorted(lines[:4]) == [
        "[1/4] seed=1: perplexity 2.00, loss 3.0000, 0:01",
        "[2/4] seed=2: perplexity 2.00, loss 1.5000, 0:01",
        "[3/4] seed=13: failed: an unlucky number; where: seed; fix: another",
        "[4/4] seed=14: failed: RuntimeError: bug",
    ]
    assert [row["status"] for row in table().values()] == ["complete", "complete", "failed", "failed"]
    assert {seen(1)["process"], seen(2)["process"]}.isdisjoint({os.getpid()})
    assert len(Path("cache/builders").read_text().splitlines()) == 1  # the cache is built once for all jobs
    command = Path("runs/sw/seed=2/command.txt").read_text().splitlines()[1]
    assert command == "python -m lmft.train seed=2 run.name=sw/seed=2"
    assert "Traceback" in Path("runs/sw/seed=14/train.log").read_text() and hidden_files() == []
    assert sweep(f"launcher={launcher}", "seed=1,2") == 0
    assert "[2/2] seed=2: already complete, perplexity 2.00" in capfd.readouterr().out


@pytest.mark.parametrize("launcher", LOCAL)
def test_no_secret_is_in_a_file_while_jobs_run_or_after(launcher):
    secrets = f"+logger.x.api_key={SECRET}1,{SECRET}2", f"+logger.y='https://me:{SECRET}@host'"
    Path("mine/logger").mkdir(parents=True)
    Path("mine/logger/z.yaml").write_text(f"z:\n  api_key: {SECRET}3\n")
    assert sweep("--config-dir", "mine", "logger=z", f"launcher={launcher}", "seed=1", *secrets) == 0
    both = [json.loads(path.read_text()) for path in sorted(Path("runs/sw").glob("*/seen.json"))]
    assert len(both) == 2 and all(each["files_with_secret"] == [] for each in both)
    assert all(each["has_secret"] for each in both)
    assert files_with(SECRET, "runs") == [] and {"0", "1"} <= {path.name for path in Path("runs/sw").iterdir()}
    assert not any(name.startswith("LMFT_SECRET") for name in os.environ)


@pytest.mark.parametrize("launcher", LOCAL)
def test_each_job_has_a_gpu_of_its_own_and_its_part_of_the_cores(launcher, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert sweep(f"launcher={launcher}", "seed=1,2,3,4", "trainer.accelerator=auto") == 0
    jobs = [seen(seed) for seed in (1, 2, 3, 4)]
    assert {job["CUDA_VISIBLE_DEVICES"] for job in jobs} == {"3", "GPU-5"}
    assert {job["OMP_NUM_THREADS"] for job in jobs} == {"4"}


def test_shares_of_the_machine(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    gpus = ["0", "1", "2", "3"]
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in shares(2, gpus, 2)] == ["0,1", "2,3"]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(3, ["7"], 1)] == ["7", "7", "7"]
    assert shares(4, [], 1) == [{"OMP_NUM_THREADS": "1"}] * 4
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert shares(2, [], 1) == [{"OMP_NUM_THREADS": "5"}] * 2
    assert [gpus_of_a_job(devices) for devices in ("auto", 1, 3, -1, [0, 1])] == [1, 1, 3, 1, 2]


@pytest.mark.parametrize("launcher", LOCAL)
def test_a_job_whose_process_is_killed_fails_alone(launcher, capfd):
    assert sweep(f"launcher={launcher}", "seed=15,1,2,3") == 1
    assert "[1/4] seed=15: failed: its process was killed" in capfd.readouterr().out
    rows = table()
    assert [rows[f"seed={seed}"]["status"] for seed in (1, 2, 3, 15)] == ["complete"] * 3 + ["failed"]


def begin(*argv, output=subprocess.PIPE):
    """Begin a sweep in a process group of its own, as a terminal does."""
    command = [sys.executable, "-m", "tests.helpers.sweep_jobs", "-m", "run.name=sw", *argv]
    return subprocess.Popen(command, stdout=output, stderr=output, text=True, start_new_session=True)


def wait_until(condition):
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within two minutes")


def waiting(*seeds):
    return lambda: all(Path(f"runs/sw/seed={seed}/step").exists() for seed in seeds)


@pytest.mark.parametrize("launcher", LOCAL)
@pytest.mark.parametrize("to_all", [True, False])
def test_a_signal_ends_all_jobs_each_saved_and_the_command_goes_on(launcher, to_all, capfd):
    argv = [f"launcher={launcher}", "seed=100,101,1"]
    process = begin(*argv)
    wait_until(waiting(100, 101))
    if to_all:
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C goes to all processes of a terminal
    else:
        process.terminate()
    out, error = process.communicate(timeout=60)
    assert process.returncode == (130 if to_all else 143) and "Traceback" not in error
    assert all(Path(f"runs/sw/seed={seed}/saved").exists() for seed in (100, 101))
    assert out.count(": stopped by SIG") == 2 and not Path("runs/sw/seed=1").exists()
    assert hidden_files() == []
    assert sweep(*argv) == 0
    assert [row["status"] for row in table().values()] == ["complete"] * 3


@pytest.mark.parametrize("launcher", LOCAL)
def test_a_killed_launcher_goes_on_by_the_same_command(launcher, capfd):
    argv = [f"launcher={launcher}", "seed=100,101,1"]
    process = begin(*argv, output=subprocess.DEVNULL)
    wait_until(waiting(100, 101))
    process.kill()
    process.wait()
    assert sweep(*argv) == 0  # waits until the jobs that were running have saved
    assert [row["status"] for row in table().values()] == ["complete"] * 3
    assert hidden_files() == []
    assert Path("runs/sw/seed=100/attempts").read_text() == "xx"


def test_a_job_whose_time_is_over_is_saved_and_begins_again():
    """submitit tells it so by a signal, some time before."""
    process = begin("launcher=submitit_local", "seed=100,2")
    wait_until(waiting(100))
    os.kill(seen(100)["process"], signal.SIGUSR2)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert Path("runs/sw/seed=100/saved").exists() and Path("runs/sw/seed=100/attempts").read_text() == "xx"
    assert "[1/2] seed=100: perplexity 2.00" in out and table()["seed=100"]["status"] == "complete"


@pytest.fixture
def slurm(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("slurm")
    fake_slurm.install(folder)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_gets_an_array_with_a_job_per_task(slurm, monkeypatch):
    options = ("partition=short", "array_parallelism=2", "setup=['export OF_SETUP=1']", "gpus_per_node=2")
    hydra = [f"hydra.launcher.{option}" for option in options]
    secret = f"+logger.x.api_key={SECRET}"
    assert sweep("launcher=slurm", "seed=1,2,15", secret, *hydra) == 1
    batch = (slurm / "batch.sh").read_text().splitlines()
    flags = {line.removeprefix("#SBATCH --") for line in batch if line.startswith("#SBATCH")}
    assert {"array=0-2%2", "partition=short", "gpus-per-node=2", "cpus-per-task=4", "time=1440"} <= flags
    assert "signal=USR2@120" in flags and "export OF_SETUP=1" in batch
    assert [line for line in batch if line.startswith("srun ")] and SECRET not in "".join(batch)
    assert {seen(seed)["SLURM_JOB_ID"] for seed in (1, 2)} == {"77", "78"}
    assert seen(1)["OMP_NUM_THREADS"] == "3" and seen(1)["has_secret"] and seen(1)["files_with_secret"] == []
    rows = table()
    assert [rows[f"seed={seed}"]["status"] for seed in (1, 2, 15)] == ["complete", "complete", "failed"]
    assert files_with(SECRET, "runs") == [] and hidden_files() == []


@pytest.mark.slow
def test_jobs_are_tasks_of_a_ray_cluster(capfd):
    secret = f"+logger.x.api_key={SECRET}"
    assert sweep("launcher=ray", "seed=1,2,13,15", secret, "hydra.launcher.ray.init.num_gpus=2") == 1
    jobs = [seen(seed) for seed in (1, 2)]
    assert os.getpid() not in {job["process"] for job in jobs}
    assert {job["CUDA_VISIBLE_DEVICES"] for job in jobs} <= {"0", "1"}
    assert all(job["has_secret"] and job["files_with_secret"] == [] for job in jobs)
    rows = table()
    assert [rows[f"seed={seed}"]["status"] for seed in (1, 2, 13, 15)] == ["complete"] * 2 + ["failed"] * 2
    out = capfd.readouterr().out
    assert "seed=15: failed: its process was killed" in out and "seed=13: failed: an unlucky number" in out


@pytest.mark.slow
def test_a_signal_ends_the_tasks_of_ray_each_saved():
    process = begin("launcher=ray", "seed=100,101")
    wait_until(waiting(100, 101))
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=100)
    assert process.returncode == 130 and "Traceback" not in error
    assert all(Path(f"runs/sw/seed={seed}/saved").exists() for seed in (100, 101))
    assert out.count(": stopped by SIG") == 2


@pytest.mark.slow
def test_what_a_ray_cluster_does_not_have_is_refused(capfd):
    assert sweep("launcher=ray", "seed=1,2", "hydra.launcher.ray.remote.num_gpus=3") == 2
    error = capfd.readouterr().err
    assert "a job takes 3 GPUs, and the cluster has 0" in error and list(Path().iterdir()) == []


def test_what_jobs_of_other_commands_print_is_shown_job_by_job(capfd):
    assert exit_code(evaluate, "model=masked", "model.name_or_path=x", "-m", "seed=1,2", "launcher=joblib") == 2
    lines = capfd.readouterr().out.splitlines()
    assert {line for line in lines if line.startswith("[") and "failed" not in line} == {
        "[1/2] seed=1",
        "[2/2] seed=2",
    }
    assert sum("seed=1: failed: " in line for line in lines) == 1 and list(Path().iterdir()) == []


def exit_code(command, *argv):
    with pytest.raises(SystemExit) as exit:
        command.main(argv)
    return exit.value.code


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["launcher=joblib"], "this is a single run"),
        (["hydra/launcher=joblib"], "this is a single run"),
        (["launcher=joblib", "hydra.launcher.n_jobs=2"], "this is a single run"),
        (["-m", "launcher=joblib,ray", "seed=1,2"], "one launcher runs all jobs of a sweep"),
        (["-m", "launcher=jobli", "seed=1,2"], "no launcher named 'jobli' (did you mean 'joblib'?)"),
        (["-m", "launcher=joblib", "hydra.launcher.n_jobs=0", "seed=1,2"], "no job could run"),
        (["-m", "launcher=joblib", "hydra.launcher.timeout=9", "seed=1,2"], "hydra.launcher.timeout is not used"),
        (["-m", "launcher=joblib", "hydra.launcher.pre_dispatch=all", "seed=1,2"], "pre_dispatch is not used"),
        (["-m", "launcher=submitit_local", "hydra.launcher.gpus_per_node=2", "seed=1,2"], "a job takes 2 GPUs"),
        (["-m", "launcher=submitit_local", "hydra.launcher.nodes=2", "seed=1,2"], "only one node"),
        (["-m", "launcher=slurm", "seed=1,2"], "no program srun"),
    ],
)
def test_what_no_launcher_could_use_is_refused(argv, said, capfd, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert exit_code(train, *argv) == 2
    error = capfd.readouterr().err
    assert said in error and 2 <= len(error.splitlines()) <= 3 and list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("launcher", "extra"), [("joblib", "joblib"), ("submitit_local", "submitit"), ("slurm", "submitit"), ("ray", "ray")]
)
def test_a_launcher_that_is_not_installed_names_the_command_that_installs_it(launcher, extra, capfd, monkeypatch):
    Plugins.instance()
    known = ConfigStore.instance().repo["hydra"]["launcher"]
    name = {"slurm": "submitit_slurm"}.get(launcher, launcher)
    monkeypatch.delitem(known, f"{name}.yaml")
    assert exit_code(train, "-m", f"launcher={launcher}", "seed=1,2") == 2
    error = capfd.readouterr().err
    assert f'pip install "lightning-lmft[{extra}]"' in error and len(error.splitlines()) == 3


def test_launcher_none_is_a_sweep_in_this_process(capfd):
    assert sweep("launcher=none", "seed=1,2") == 0
    assert seen(1)["process"] == os.getpid() and exit_code_of_single_run() is None


def exit_code_of_single_run():
    return sweep_jobs.main(["launcher=none", "seed=3", "run.name=one"])
