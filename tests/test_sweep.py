import csv
import errno
import json
import logging
import os
import signal
import sys
import types

import pytest
import yaml

from lmft import evaluate, train
from lmft.errors import UserError
from lmft.sweep import job_name

SECRET = "hf_SentinelThatMustNotBeWritten"


def fake_fit(config, run):
    """Trains nothing: the loss is 3 / seed; seed 13 is refused, 14 fails, 15 gets SIGTERM, 16 finds the disk full."""
    seed = config["seed"]
    if seed == 13:
        raise UserError("an unlucky number", "seed", "another")
    with run:
        if seed == 14:
            raise RuntimeError(config["logger"].get("wandb", {}).get("api_key", "bug"))
        if seed == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        if seed == 16:
            raise OSError(errno.ENOSPC, "No space left on device", str(run.folder))
        after = {"loss": 3 / seed, "perplexity": 20.0}
        before = {"loss": 9.0, "perplexity": float("inf")}
        metrics = {"status": "complete", "before": before, "after": after, "train": {"seconds": 2.0}}
        run.write_metrics(metrics)
    return metrics


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    fit = types.ModuleType("lmft.fit")
    vars(fit).update(fit=fake_fit, evaluate=lambda config: print("loss of seed", config["seed"]) or {"loss": 1.0})
    monkeypatch.setitem(sys.modules, "lmft.fit", fit)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:], root.level = handlers, level


def exit_code(command, *argv):
    with pytest.raises(SystemExit) as exit:
        command.main(argv)
    return exit.value.code


def test_each_job_has_a_folder_that_says_its_overrides(in_empty_folder, capsys):
    assert exit_code(train, "-m", "optimizer.lr=1e-5,5e-5", "seed=1,2", "data.batch_size=8", "run.name=sw") == 0
    sweep = in_empty_folder / "runs" / "sw"
    jobs = [f"optimizer.lr={lr},seed={seed}" for lr in ("1e-05", "5e-05") for seed in (1, 2)]
    assert sorted(path.name for path in sweep.iterdir()) == [*jobs, "sweep.csv"]
    assert [path.name for path in in_empty_folder.iterdir()] == ["runs"]
    config = yaml.safe_load((sweep / jobs[1] / "config.yaml").read_text())
    assert config["seed"] == 2 and config["optimizer"]["lr"] == 1e-5 and config["data"]["batch_size"] == 8
    command = (sweep / jobs[1] / "command.txt").read_text().splitlines()[1]
    assert command.endswith(f"optimizer.lr=1e-05 seed=2 data.batch_size=8 run.name=sw/{jobs[1]}")
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert [row["loss"] for row in rows] == ["1.5", "1.5", "3", "3"] and rows[0]["seconds"] == "2"
    shown = capsys.readouterr().out
    assert all(job in shown for job in jobs)


def test_a_job_of_a_sweep_goes_on_by_its_command(in_empty_folder):
    exit_code(train, "-m", "seed=1,2", "run.name=sw")
    argv = (in_empty_folder / "runs/sw/seed=2/command.txt").read_text().splitlines()[1].split()[3:]
    train.main(argv)
    assert sorted(path.name for path in (in_empty_folder / "runs").iterdir()) == ["sw"]


def test_a_failed_job_does_not_end_the_sweep(in_empty_folder, capfd):
    assert exit_code(train, "-m", "seed=13,14,2", "run.name=sw") == 1
    said = capfd.readouterr().out
    assert said.index("an unlucky number") < said.index("RuntimeError: bug") < said.index("complete")
    rows = list(csv.DictReader((in_empty_folder / "runs/sw/sweep.csv").open()))
    assert [(row["job"], row["status"]) for row in rows] == [
        ("seed=2", "complete"),
        ("seed=13", "failed"),
        ("seed=14", "failed"),
    ]
    assert rows[1]["error"] == "an unlucky number" and rows[2]["error"] == "RuntimeError: bug"
    failed = json.loads((in_empty_folder / "runs/sw/seed=14/metrics.json").read_text())
    assert failed == {"status": "failed", "error": "RuntimeError: bug", "exit_code": 1}
    assert exit_code(train, "-m", "seed=13", "run.name=other") == 2


def test_an_error_that_the_user_can_mend_is_said_as_one(in_empty_folder, capfd):
    assert exit_code(train, "-m", "seed=16,2", "run.name=sw") == 2
    failed = json.loads((in_empty_folder / "runs/sw/seed=16/metrics.json").read_text())
    assert failed["error"] == "no space left on device" and failed["exit_code"] == 2
    assert "Traceback" not in capfd.readouterr().out


def test_fault_10_a_signal_ends_the_whole_sweep(in_empty_folder, capfd):
    assert exit_code(train, "-m", "seed=1,15,2", "run.name=sw") == 143
    said = capfd.readouterr()
    assert "stopped by SIGTERM" in said.err and "Traceback" not in said.err + said.out
    rows = list(csv.DictReader((in_empty_folder / "runs/sw/sweep.csv").open()))
    assert [(row["job"], row["status"]) for row in rows] == [("seed=1", "complete"), ("seed=15", "stopped")]
    assert "seed=15" in said.out and not (in_empty_folder / "runs/sw/seed=2").exists()


def test_nothing_that_hydra_writes_stays(in_empty_folder, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    exit_code(train, "-m", "seed=1,14", "logger=wandb", f"+logger.wandb.api_key={SECRET}x", "run.name=sw")
    files = [path for path in in_empty_folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name in ("multirun.yaml", "hydra.yaml", "overrides.yaml")]
    assert files and not [path for path in files if SECRET in path.read_text() or SECRET in str(path)]


def test_a_secret_that_is_swept_is_in_no_name(in_empty_folder):
    exit_code(train, "-m", f"+logger.wandb.api_key={SECRET}a,{SECRET}b", "run.name=sw")
    assert sorted(path.name for path in (in_empty_folder / "runs" / "sw").iterdir()) == ["0", "1", "sweep.csv"]


def test_a_sweep_that_cannot_be_composed_leaves_nothing(in_empty_folder):
    assert exit_code(train, "-m", "model=bert,brt") == 2
    assert exit_code(train, "-m", "seed=1,2", "run.name=../x") == 2
    assert list(in_empty_folder.iterdir()) == []


def test_two_sweeps_of_the_same_second_get_two_folders(in_empty_folder):
    for _ in range(2):
        exit_code(train, "-m", "model=bert")
    names = sorted(path.name for path in (in_empty_folder / "runs").iterdir())
    assert len(names) == 2 and all(name.startswith("bert-python_docs-20") for name in names)


def test_a_sweep_does_not_go_into_a_run(in_empty_folder, capsys):
    train.main(["run.name=x"])
    assert exit_code(train, "-m", "seed=1,2", "run.name=x") == 2
    assert "is in use" in capsys.readouterr().err


def test_a_sweep_of_another_command_leaves_nothing(in_empty_folder, capfd):
    assert exit_code(evaluate, "model.name_or_path=x", "-m", "seed=1,2") == 0
    assert "loss of seed 1" in capfd.readouterr().out
    assert list(in_empty_folder.iterdir()) == []


@pytest.mark.parametrize(
    ("differing", "name"),
    [
        ("optimizer.lr=1e-05,seed=1", "optimizer.lr=1e-05,seed=1"),
        ("data.path=../a b", "data.path=..-a-b-7"),
        ("++model.config.dim=3", "model.config.dim=3"),
        ("", "job-7"),
        ("x" * 300, "x" * 120 + "-7"),
    ],
)
def test_names_of_jobs(differing, name):
    assert job_name(differing, 7) == name
