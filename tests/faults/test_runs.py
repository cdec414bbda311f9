"""Rows 12, 24 to 26 and 40: runs that are finished, many at a time, or called what they should not be."""

import csv
import json
import math
import multiprocessing
import time

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher

from lmft.runs.run import Run
from tests.helpers.processes import contents
from tests.helpers.runs import tiny_arguments

pytestmark = pytest.mark.timeout(120)

TINY = ("trainer.max_steps=2", "validate_before=false")


def test_fault_12_a_finished_run_says_that_it_is_complete(terminal):
    name = "run.name=done"
    terminal.trains(name, *TINY)
    before = contents(terminal.folder / "runs")
    out = terminal.trains(name, *TINY)
    assert "done is complete: 2 of 2 steps; a larger trainer.max_steps continues it" in out
    assert contents(terminal.folder / "runs") == before
    terminal.trains(name, *TINY, "trainer.max_steps=4")
    assert json.loads((terminal.folder / "runs/done/metrics.json").read_text())["steps"] == 4


def sweep(terminal):
    """A sweep over two texts: its exit code, what it prints, and its table."""
    arguments = tiny_arguments(terminal.folder)
    arguments = [argument for argument in arguments if not argument.startswith("data.train=")]
    code, out, _ = terminal.run("train", "-m", *arguments, *TINY, "run.name=sw", "data.train=absent.txt,text.txt")
    with (terminal.folder / "runs/sw/sweep.csv").open(newline="") as file:
        return code, out, {row["job"]: row for row in csv.DictReader(file)}


def test_fault_24_a_failed_job_is_said_at_once_and_made_up_for_by_the_same_command(terminal):
    code, out, table = sweep(terminal)
    assert code != 0
    said, goes_on, *_ = out.splitlines()
    assert "no such file or folder: absent.txt" in said and goes_on.startswith("[2/2] data.train=text.txt: perplexity ")
    assert {job: row["status"] for job, row in table.items()} == {
        "data.train=absent.txt": "failed",
        "data.train=text.txt": "complete",
    }
    assert "no such file or folder" in table["data.train=absent.txt"]["error"]
    done = contents(terminal.folder / "runs/sw/data.train=text.txt")

    (terminal.folder / "absent.txt").write_bytes((terminal.folder / "text.txt").read_bytes())
    code, out, table = sweep(terminal)
    assert code == 0 and {row["status"] for row in table.values()} == {"complete"}
    assert "already complete" in out and contents(terminal.folder / "runs/sw/data.train=text.txt") == done


def test_fault_25_of_a_failed_trial_the_sweeper_is_told_nan_and_goes_on(terminal, monkeypatch):
    told, launcher = [], next(each for each in Plugins.instance().discover(Launcher) if "Basic" in each.__name__)
    assert issubclass(launcher, Launcher)
    launch = launcher.launch

    def launching(self, *asked, **options):
        returned = launch(self, *asked, **options)
        told.extend(job.return_value for job in returned)
        return returned

    monkeypatch.setattr(launcher, "launch", launching)
    sweep(terminal)
    assert len(told) == 2 and math.isnan(told[0]) and 0 < told[1] < 10


def test_fault_25_optuna_marks_a_trial_of_nan_as_failed():
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study()
    study.tell(study.ask(), math.nan)
    study.tell(study.ask(), 3.5)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"] and study.best_value == 3.5


def _enter(folder, barrier, names):
    run = Run({"run": {"dir": folder, "name": None}, "resume": "auto"}, {"model": "bert", "data": "imdb"})
    barrier.wait(30)
    with run:
        run.begin()
        names.put(run.name)


def test_fault_26_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    context = multiprocessing.get_context("fork")
    barrier, names = context.Barrier(8), context.Queue()
    processes = [context.Process(target=_enter, args=(str(tmp_path), barrier, names)) for _ in range(8)]
    for process in processes:
        process.start()
    found = {names.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(30)
    assert len(found) == 8 and {path.name for path in tmp_path.iterdir()} == found
    assert all((tmp_path / name / "config.yaml").is_file() for name in found)


@pytest.mark.parametrize("name", ["..", "../thesis", "/tmp/x", "a/../../thesis", ".git", "a/b/c", "'a b'", "thesis"])
def test_fault_40_a_runs_name_leads_nowhere_else(name, terminal):
    for path in ("thesis/chapter1.txt", "runs/thesis/chapter1.txt"):
        (terminal.folder / path).parent.mkdir(parents=True)
        (terminal.folder / path).write_text("words")
    tiny_arguments(terminal.folder)  # writes the text
    before = contents(terminal.folder)
    said = terminal.refuses_to_train(f"run.name={name}", "checkpoint.every_n_steps=1")
    assert ("not a run's folder" if name == "thesis" else "cannot be a run's name") in said
    after = {path: content for path, content in contents(terminal.folder).items() if "/cache/" not in path}
    assert after == before


def test_fault_40_a_run_deletes_nothing_outside_its_folder(terminal):
    arguments = ("checkpoint.every_n_steps=1", "checkpoint.keep_last=1", "run.dir=runs")
    terminal.trains(*TINY, *arguments, "run.name=neighbour")
    (terminal.folder / "step=1.ckpt").write_text("of somebody else")
    (terminal.folder / "runs" / "step=1.ckpt").write_text("of somebody else")
    before = contents(terminal.folder)
    terminal.trains(*TINY, *arguments, "trainer.max_steps=5", "run.name=mine")
    assert before.items() <= contents(terminal.folder).items()
