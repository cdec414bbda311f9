import csv
import errno
import json
import logging
import os
import re
import shlex
import signal
import warnings
from pathlib import Path

import pytest
import yaml
from rich.text import Text

from lmft import evaluate, train
from lmft.cli.sweep import Sweep
from lmft.cli.sweep_folder import job_name
from lmft.errors import UserError
from lmft.reporting.terminal import show

log = logging.getLogger("lmft")

SECRET = "hf_SentinelThatMustNotBeWritten"


def fake_fit(config, run):
    """Trains nothing: the loss is 3 / seed.

    Seed 13 is refused, 14 fails, 15 gets SIGTERM, 16 finds the disk full, 17 fails before there is a log.
    """
    seed = config["seed"]
    if seed % 2:
        log.warning("seed %d is odd", seed)
    if seed == 13:
        raise UserError("an unlucky number", "seed", "another")
    if seed == 17:
        raise RuntimeError("early bug")
    if run.status() == "complete":
        return json.loads(run.paths.metrics.read_text())
    with run:
        run.begin()
        log.info("step 1/1")
        show(Text(f"a table of job {seed}"))
        if seed == 4:
            warnings.warn("four", stacklevel=1)
        if seed == 14:
            raise RuntimeError(config["logger"].get("wandb", {}).get("api_key", "bug"))
        if seed == 15:
            os.kill(os.getpid(), signal.SIGTERM)
        if seed == 16:
            raise OSError(errno.ENOSPC, "No space left on device", str(run.folder))
        after = {"loss": 3 / seed, "perplexity": float(config["data"]["batch_size"])}
        before = {"loss": 9.0, "perplexity": float("inf")}
        metrics = {"status": "complete", "before": before, "after": after, "train": {"seconds": 62.0}}
        if seed == 6:
            metrics["exported"] = {"step": 5, "checkpoint": "best", "loss": 0.25, "perplexity": 1.25}
        if seed == 8:
            del metrics["before"], metrics["after"]  # nothing was validated
        run.write_metrics(metrics)
    return metrics


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("lmft.commands.train.fit", fake_fit)
    monkeypatch.setattr(
        "lmft.commands.evaluate.measure", lambda config: print("loss of seed", config["seed"]) or {"loss": 1.0}
    )
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
    assert sorted(path.name for path in sweep.iterdir()) == ["best", *jobs, "sweep.csv"]
    assert [path.name for path in in_empty_folder.iterdir()] == ["runs"]
    config = yaml.safe_load((sweep / jobs[1] / "config.yaml").read_text())
    assert config["seed"] == 2 and config["optimizer"]["lr"] == 1e-5 and config["data"]["batch_size"] == 8
    command = (sweep / jobs[1] / "command.txt").read_text().splitlines()[1]
    assert command.endswith(f"optimizer.lr=1e-05 seed=2 data.batch_size=8 run.name=sw/{jobs[1]}")
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert [row["loss"] for row in rows] == ["1.5", "1.5", "3", "3"] and rows[0]["seconds"] == "62"
    shown = capsys.readouterr().out
    assert all(job in shown for job in jobs)


def table_rows(folder, name="sw"):
    with (folder / "runs" / name / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_job_shows_a_line_and_its_log_holds_the_rest(in_empty_folder, capfd):
    exit_code(train, "-m", "seed=1,2,4,8", "data.batch_size=1234", "run.name=sw")
    lines = capfd.readouterr().out.splitlines()
    assert lines[:5] == [
        "[1/4] seed=1: perplexity 1,234.00, loss 3.0000, 1:02, 1 warning in its train.log",
        "[2/4] seed=2: perplexity 1,234.00, loss 1.5000, 1:02",
        "[3/4] seed=4: perplexity 1,234.00, loss 0.7500, 1:02, 1 warning in its train.log",
        "[4/4] seed=8: complete, 1:02",
        "runs/sw: validation, loss in nats per target",
    ]
    logs = [(in_empty_folder / f"runs/sw/seed={seed}/train.log").read_text() for seed in (1, 2, 4)]
    for seed, text in zip((1, 2, 4), logs, strict=True):
        assert "INFO lmft: step 1/1\n" in text and f"\na table of job {seed}\n" in text
        assert text.count("a table of job") == 1 and text.count("is odd") == seed % 2
    assert "UserWarning: four" in logs[2]


def test_a_job_that_was_complete_says_so_and_is_left_as_it_was(in_empty_folder, capfd):
    exit_code(train, "-m", "seed=2,3", "run.name=sw")
    log = in_empty_folder / "runs/sw/seed=2/train.log"
    before = log.read_text()
    exit_code(train, "-m", "seed=2,4", "run.name=sw")
    assert "[1/2] seed=2: already complete, perplexity 64.00, loss 1.5000, 1:02\n" in capfd.readouterr().out
    assert log.read_text() == before


def test_where_a_bug_comes_from_is_in_the_log_of_its_job_alone(in_empty_folder, capfd):
    assert exit_code(train, "-m", "seed=17,14,2,13", "run.name=sw") == 1
    said = capfd.readouterr()
    assert said.out.splitlines()[:4] == [
        "[1/4] seed=17: failed: RuntimeError: early bug, 1 warning in its train.log",
        "[2/4] seed=14: failed: RuntimeError: bug",
        "[3/4] seed=2: perplexity 64.00, loss 1.5000, 1:02",
        "[4/4] seed=13: failed: an unlucky number; where: seed; fix: another, 1 warning in its train.log",
    ]
    assert "Traceback" not in said.out + said.err
    logs = {seed: (in_empty_folder / f"runs/sw/seed={seed}/train.log").read_text() for seed in (17, 14, 2, 13)}
    assert "seed 17 is odd" in logs[17] and "\nRuntimeError: early bug\n" in logs[17]
    assert "\nRuntimeError: bug\n" in logs[14] and "early bug" not in logs[14] + logs[2]
    assert "seed 13 is odd" in logs[13] and "an unlucky number" in logs[13] and "Traceback" not in logs[13]


def test_a_job_that_is_refused_keeps_the_log_it_has(in_empty_folder):
    folder = in_empty_folder / "runs/sw/job-0"
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("what was\n")
    exit_code(train, "-m", "seed=13", "run.name=sw")
    assert (folder / "train.log").read_text() == "what was\n"


def test_the_table_shows_every_number_whole_on_a_terminal_of_any_width(in_empty_folder, capfd, monkeypatch):
    sizes = "data.batch_size=123456789012,7,99999999999999"
    for name in ("x" * 60, "y"):
        (in_empty_folder / f"{name}.txt").write_text("a text\n")
    exit_code(train, "-m", "seed=2", sizes, f"data.train={'x' * 60}.txt,y.txt", "run.name=sw")
    rows = table_rows(in_empty_folder)
    assert {row["perplexity"] for row in rows} == {"123456789012", "7", "99999999999999"}
    for columns in (None, "44", "60", "80", "250"):
        if columns:
            monkeypatch.setenv("COLUMNS", columns)
        else:
            monkeypatch.delenv("COLUMNS", raising=False)
        capfd.readouterr()
        Sweep(in_empty_folder / "runs" / "sw", [], True, [], None).end()
        shown = capfd.readouterr().out
        table = shown[shown.index("\n  job ") :]
        assert all(len(line) <= int(columns or 80) for line in table.splitlines()) and "…" not in table
        words = table.split()
        assert words.count("1.5") == len(rows) == 6
        long = [word for word in words if len(word) > 11 and word.isdigit()]
        assert long == [row["perplexity"] for row in rows if row["perplexity"] != "7"]
        assert ("loss before: in sweep.csv" in table) == (columns in ("44", "60"))


def test_what_no_job_has_takes_no_column(in_empty_folder, capfd):
    exit_code(train, "-m", "seed=8", "run.name=sw")
    head = capfd.readouterr().out.splitlines()[2]
    assert head.split() == ["job", "status", "seconds"]
    assert "perplexity before" in table_rows(in_empty_folder)[0]


def test_jobs_are_ranked_by_the_scores_of_the_model_that_they_leave(in_empty_folder, capfd):
    exit_code(train, "-m", "seed=2,6,9", "run.name=sw")
    rows = table_rows(in_empty_folder)
    assert [(row["job"], row["loss"]) for row in rows] == [
        ("seed=6", "0.25"),
        ("seed=9", "0.333333"),
        ("seed=2", "1.5"),
    ]
    assert rows[0]["perplexity"] == "1.25"
    assert "[2/3] seed=6: perplexity 1.25, loss 0.2500, 1:02\n" in capfd.readouterr().out


@pytest.mark.slow
def test_the_jobs_of_a_yaml_are_counted(in_empty_folder, capfd):
    (in_empty_folder / "mine" / "experiment").mkdir(parents=True)
    params = "# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 1,2\n"
    (in_empty_folder / "mine" / "experiment" / "two.yaml").write_text(params)
    exit_code(train, "-m", "--config-dir", "mine", "experiment=two", "data.batch_size=range(1,3)", "run.name=sw")
    lines = capfd.readouterr().out.splitlines()
    assert [line[:6] for line in lines[:4]] == [f"[{number}/4] " for number in range(1, 5)]


def test_what_cannot_be_swept_leaves_nothing(in_empty_folder, capsys):
    assert exit_code(train, "-m", "seed=interval(1,3)", "run.name=sw") == 2
    assert "interval" in capsys.readouterr().err.lower() and list(in_empty_folder.iterdir()) == []


def test_a_job_of_a_sweep_goes_on_by_its_command(in_empty_folder):
    exit_code(train, "-m", "seed=1,2", "run.name=sw")
    argv = (in_empty_folder / "runs/sw/seed=2/command.txt").read_text().splitlines()[1].split()[3:]
    train.main(argv)
    assert sorted(path.name for path in (in_empty_folder / "runs").iterdir()) == ["sw"]


def test_the_best_model_is_named(in_empty_folder, capfd):
    (in_empty_folder / "runs/sw/seed=2/model").mkdir(parents=True)
    (in_empty_folder / "runs/sw/seed=2/config.yaml").touch()
    exit_code(train, "-m", "seed=1,2", "run.name=sw")
    assert "best: runs/sw/seed=2/model; runs/sw/best leads to its run" in capfd.readouterr().out
    assert (in_empty_folder / "runs/sw/best").readlink() == Path("seed=2")
    exit_code(train, "-m", "seed=13", "run.name=none")  # a sweep without a complete run has no best one
    assert "best:" not in capfd.readouterr().out and not (in_empty_folder / "runs/none/best").exists()


def test_a_failed_job_does_not_end_the_sweep(in_empty_folder, capfd):
    assert exit_code(train, "-m", "seed=13,14,2", "run.name=sw") == 1
    said = capfd.readouterr().out
    assert said.index("an unlucky number") < said.index("RuntimeError: bug") < said.index("complete")
    assert said.count("an unlucky number") == 1
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


def test_a_sweep_that_is_stopped_says_how_it_continues(in_empty_folder, capfd, monkeypatch):
    assert exit_code(train, "-m", "seed=1,15,2", f"+logger.wandb.api_key={SECRET}", "logger=wandb") == 143
    [said] = [line for line in capfd.readouterr().err.splitlines() if "continue:" in line]
    [name] = [path.name for path in (in_empty_folder / "runs").iterdir()]
    assert said.startswith("  continue: python -m lmft.train -m seed=1,15,2 ") and SECRET not in said
    assert said.endswith(f" run.name={name}")
    monkeypatch.setattr("lmft.commands.train.fit", lambda config, run: fake_fit({**config, "seed": 2}, run))
    words = [word for word in shlex.split(said)[4:] if "api_key" not in word]
    assert exit_code(train, *words, f"+logger.wandb.api_key={SECRET}") == 0
    assert [row["status"] for row in table_rows(in_empty_folder, name)] == ["complete"] * 3


def test_a_terminal_has_a_table_below_the_lines_of_jobs(in_empty_folder, capfd, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    exit_code(train, "-m", "seed=2,13,4", "run.name=sw")
    shown = capfd.readouterr().out
    states = re.findall(r"(\d of 3 jobs have ended[^\x1b]*)", shown)
    assert [state.partition(",")[0][0] for state in states] == ["0", "1", "2", "3"]
    assert "1 failed" in states[2] and "left" in states[2] and "left" not in states[3]
    num_erased = shown.count("\x1b[1A\x1b[2K")
    erased = re.split(r"(?:\x1b\[1A\x1b\[2K)+", shown)
    assert len(erased) == 6 and "reading the options" in erased[0] and num_erased > 4
    assert all("jobs have ended" in part for part in erased[1:-1]) and "jobs have ended" not in erased[-1]


def test_what_is_no_terminal_has_no_such_table(in_empty_folder, capfd):
    exit_code(train, "-m", "seed=2,4", "run.name=sw")
    assert "have ended" not in capfd.readouterr().out


def test_an_interpolation_names_the_folder_as_without_a_sweep(in_empty_folder):
    assert exit_code(train, "-m", "run.dir=${hydra:runtime.cwd}/out", "run.name=x-${now:%Y}", "seed=1,2") == 0
    [sweep] = (in_empty_folder / "out").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == ["best", "seed=1", "seed=2", "sweep.csv"]


def test_the_command_of_a_job_has_the_folders_of_ones_own_yamls(in_empty_folder):
    (in_empty_folder / "mine" / "model").mkdir(parents=True)
    (in_empty_folder / "mine" / "model" / "own.yaml").write_text("defaults: [distilbert_tiny]\n")
    exit_code(train, "-m", "hydra.searchpath=[file://mine]", "model=own,gpt2_tiny", "run.name=sw")
    command = in_empty_folder / "runs/sw/model=own/command.txt"
    words = shlex.split(command.read_text().splitlines()[1])[3:]
    train.main([*words, "--cfg", "job", "--package", "run"])


def test_jobs_of_several_yamls_are_composed_before_the_first_begins(in_empty_folder, capsys):
    options = ("model=distilbert_tiny,gpt2_tiny", "~model.config.dim", "run.name=sw")
    assert exit_code(train, "-m", *options) == 2
    assert "dim" in capsys.readouterr().err and not (in_empty_folder / "runs").exists()


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


def test_a_refused_job_leaves_its_earlier_run_as_it_was(in_empty_folder, monkeypatch, capfd):
    assert exit_code(train, "-m", "seed=2,3", "run.name=sw") == 0
    jobs = in_empty_folder / "runs" / "sw"
    before = {path: path.read_bytes() for path in jobs.glob("*/*")}

    def refuse(config, run):
        raise UserError("no", "seed", "another")

    monkeypatch.setattr("lmft.commands.train.fit", refuse)
    assert exit_code(train, "-m", "seed=2,3", "run.name=sw") == 2
    assert {path: path.read_bytes() for path in jobs.glob("*/*")} == before
    assert [row["status"] for row in table_rows(in_empty_folder)] == ["failed", "failed"]
    monkeypatch.setattr("lmft.commands.train.fit", fake_fit)
    assert exit_code(train, "-m", "seed=2,3", "run.name=sw") == 0


def test_a_sweep_does_not_go_into_a_run(in_empty_folder, capsys):
    train.main(["run.name=x"])
    assert exit_code(train, "-m", "seed=1,2", "run.name=x") == 2
    assert "is in use" in capsys.readouterr().err


def test_a_sweep_of_another_command_leaves_nothing(in_empty_folder, capfd):
    assert exit_code(evaluate, "model=masked", "model.name_or_path=x", "-m", "seed=1,2") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines == ["[1/2] seed=1", "loss of seed 1", "[2/2] seed=2", "loss of seed 2"]
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
