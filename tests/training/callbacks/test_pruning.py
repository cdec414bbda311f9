"""A trial that its search ends early: real trainings of tiny models."""

import csv
import json
import signal

import optuna
import pytest

from lmft.sweeps.journal import JOURNAL, STUDY, open_journal
from lmft.sweeps.pruning import must_end
from lmft.sweeps.samplers import make_pruner
from lmft.sweeps.trial import TrialReference
from tests.helpers.faults import signals
from tests.helpers.processes import Terminal
from tests.helpers.runs import tiny_arguments
from tests.helpers.searches import states, study_of

pytestmark = pytest.mark.timeout(120)
# Three trials that learn, and two that do not; a validation every four steps.
VALUES = ("optimizer.lr=0.03,0.02,0.01,1e-9,1e-8", "trainer.val_check_interval=0.5", "validate_before=false")


@pytest.fixture
def terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    return Terminal(tmp_path, capsys)


def search(terminal, *argv):
    options = ("sweep=optuna", "sweep.sampler=grid", "sweep.pruner=median", "sweep.startup_trials=2")
    return terminal.run("train", "--multirun", *options, *tiny_arguments(terminal.folder), "run.name=s", *argv)


def test_a_trial_worse_than_the_median_is_pruned_and_exports_nothing(terminal):
    code, out, error = search(terminal, *VALUES)
    assert code == 0, error
    study = study_of(terminal.folder / "runs/s")
    assert states(study) == ["COMPLETE"] * 2 + ["PRUNED"] * 3 or states(study)[3:] == ["PRUNED"] * 2
    told = " ".join(out.split())  # the terminal breaks lines
    assert "2 pruned" in told or "3 pruned" in told
    assert sorted(study.trials[0].intermediate_values) == [1, 2, 3, 4]
    pruned = terminal.folder / "runs/s/004,optimizer.lr=1e-09"
    metrics = json.loads((pruned / "metrics.json").read_text())
    assert metrics["status"] == "pruned" and metrics["train"]["seconds"] > 0
    assert metrics["after"]["loss"] == pytest.approx(study.trials[3].value)
    assert "pruned at step" in (pruned / "train.log").read_text()
    assert not (pruned / "model").exists() and "[4/5] 004,optimizer.lr=1e-09: pruned, perplexity" in out
    with (terminal.folder / "runs/s/sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == sorted(row["status"] for row in rows), "pruned ones come last"

    argv = (pruned / "command.txt").read_text().split("lmft.train ")[1].split()
    code, out, error = terminal.run("train", *argv)
    assert code == 0 and json.loads((pruned / "metrics.json").read_text())["status"] == "complete"


def test_a_stopped_trial_goes_on_in_its_folder_and_reports_each_validation_once(terminal, monkeypatch):
    argv = ("optimizer.lr=0.03,0.02", *VALUES[1:])
    with monkeypatch.context() as patch:
        signals(patch, "training_step", [6])
        code = search(terminal, *argv)[0]
    assert code == 128 + signal.SIGTERM
    study = study_of(terminal.folder / "runs/s")
    assert states(study) == ["RUNNING"] and list(study.trials[0].intermediate_values) == [1]
    assert search(terminal, *argv)[0] == 0
    assert states(study) == ["COMPLETE"] * 2 and sorted(study.trials[0].intermediate_values) == [1, 2, 3, 4]
    log = (terminal.folder / "runs/s/001,optimizer.lr=0.03/train.log").read_text()
    assert "resuming from" in log


def test_without_a_validation_in_the_training_a_trial_is_refused(terminal):
    code, out, _ = search(terminal, "optimizer.lr=1,2", "trainer.check_val_every_n_epoch=3")
    assert code == 2 and out.count("its first validation comes after") == 2 and "sweep.pruner=median" in out


@pytest.mark.parametrize("pruner", ["none", "median", "asha", "hyperband"])
def test_each_pruner_ends_bad_trials_and_no_good_ones(pruner, tmp_path):
    storage = open_journal(tmp_path / JOURNAL)
    study = optuna.create_study(storage=storage, study_name=STUDY, pruner=make_pruner(pruner, 1, 2))
    lengths = []
    for number, level in enumerate([1.0, 1.1, 0.9, 5.0, 6.0, 7.0, 0.5]):
        trial = study.ask()
        reference = TrialReference(str(tmp_path / JOURNAL), number, pruner, 1, 2)
        steps = range(1, 10)
        length = next((step for step in steps if must_end(reference, step, level / step)), 9)
        lengths.append(length)
        study.tell(trial, level / length)
    assert lengths[-1] == 9 and (sum(lengths[3:6]) < 27) == (pruner != "none")


def test_a_trial_whose_loss_is_no_number_is_pruned(tmp_path):
    storage = open_journal(tmp_path / JOURNAL)
    study = optuna.create_study(storage=storage, study_name=STUDY)
    for number in range(3):
        trial = study.ask()
        reference = TrialReference(str(tmp_path / JOURNAL), number, "median", 1, 2)
        assert must_end(reference, 1, float("nan") if number == 2 else 1.0) == (number == 2)
        study.tell(trial, 1.0)
