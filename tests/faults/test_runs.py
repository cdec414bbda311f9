"""Rows 12, 24 to 26 and 40: runs that are finished, many at a time, or called what they should not be."""

import csv
import json
import multiprocessing
import time

import pytest

from lmft.modules.base import LanguageModel
from lmft.runs.run import Run
from tests.helpers import faults as fault
from tests.helpers.processes import contents
from tests.helpers.runs import tiny_arguments
from tests.helpers.searches import states, study_of

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


def search(terminal, *argv):
    """A search over the combinations of values: its exit code, what it prints, and the states of its trials."""
    arguments = [argument for argument in tiny_arguments(terminal.folder) if not argument.startswith("data.train=")]
    command = ("-m", "sweep=optuna", "sweep.sampler=grid", *arguments, "validate_before=false", "run.name=search")
    code, out, _ = terminal.run("train", *command, *argv)
    return code, out, states(study_of(terminal.folder / "runs/search"))


def test_fault_25_a_trial_that_fails_is_recorded_and_the_search_goes_on(terminal):
    values = ("data.train=absent.txt,text.txt", "optimizer.lr=1e-3,1e30", "trainer.max_steps=4")
    code, out, ended = search(terminal, *values)
    assert code == 2 and ended == ["FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert out.count("no such file or folder: absent.txt") == 2 and out.count("loss is not finite") == 1
    assert "the search has its 4 trials: 1 complete, 3 failed" in out
    again = search(terminal, *values)
    assert again[2] == ended and "perplexity" not in again[1].partition("the search has")[0]


def test_fault_25_a_trial_that_runs_out_of_memory_is_recorded_and_the_search_goes_on(terminal, monkeypatch):
    monkeypatch.setattr(LanguageModel, "nats", fault.memory_for(0, 1, "forward"))
    code, out, ended = search(terminal, "data.train=text.txt", "seed=1,2", "trainer.max_steps=2")
    assert code == 2 and ended == ["FAIL", "FAIL"] and out.count("out of memory") == 2


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
