"""Row 25: SIGKILL at any moment of a search on which two processes work."""

import os
import random
import signal
import time

import pytest

from lmft.commands.prepare import tokenise as prepare
from lmft.config.load import compose
from tests.helpers.forked import Forked
from tests.helpers.runs import tiny_arguments
from tests.helpers.searches import STEPS, Launcher, forked, lines, metrics, search, states, study_of, trial_folders

pytestmark = pytest.mark.timeout(120)
SPACE = ("x=interval(-1.0,1.0)", "y=interval(-1.0,1.0)")


def begin(folder, num_trials):
    return forked(lambda: search(folder, *SPACE, launcher=Launcher(nap=0.004), num_trials=num_trials))


def killed(process):
    """Whether a kill came before the end."""
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("seed", [1, 2])
def test_fault_25_of_a_search_killed_twenty_times_no_trial_is_lost_or_done_twice(seed, tmp_path):
    num_trials = 40
    draw = random.Random(seed)
    workers = [begin(tmp_path, num_trials) for _ in range(2)]
    num_kills = 0
    while num_kills < 20:
        time.sleep(draw.uniform(0, 0.15))
        victim = draw.randrange(2)
        num_kills += killed(workers[victim])
        workers[victim] = begin(tmp_path, num_trials)
    ended = [os.waitpid(worker, 0)[1] for worker in workers]
    # One that had nothing left to do may have ended while the other's last trial still ran; none ends by an error.
    assert ended == [0, 0]
    study = study_of(tmp_path)
    assert states(study) == ["COMPLETE"] * num_trials
    folders = trial_folders(tmp_path)
    num_taken_over = 0
    assert len(folders) == num_trials, "a trial that is taken over keeps its folder"
    for trial, folder in zip(study.trials, folders, strict=True):
        assert folder.name.startswith(f"{trial.number + 1:03d},")
        steps = [line.split() for line in lines(folder / STEPS)]
        assert [step for step, _ in steps] == [*"01234"], "its steps, each made once"
        num_taken_over += len({process for _, process in steps}) > 1
        assert metrics(folder)["exported"]["loss"] == trial.value
    assert num_taken_over
    assert len({(trial.params["x"], trial.params["y"]) for trial in study.trials}) == num_trials


def trainings(folder, name):
    """A search of four tiny trainings, as it is typed."""
    values = ("optimizer.lr=0.03,0.01", "seed=1,2", "checkpoint.every_n_steps=1", "trainer.log_every_n_steps=1")
    options = ("sweep=optuna", "sweep.sampler=grid", "sweep.pruner=asha", "sweep.prune_after=99")
    return Forked(folder, "train", ["--multirun", *options, *values, *tiny_arguments(folder), f"run.name={name}"])


def wait_for_training(search):
    """Waits until a trial has a checkpoint and has not ended."""
    deadline = time.monotonic() + 120
    while all((found.parents[1] / "metrics.json").exists() for found in search.glob("*/checkpoints/*.ckpt")):
        assert time.monotonic() < deadline, "no trial trains"
        time.sleep(0.02)


def losses(folder):
    return [metrics(trial)["exported"]["loss"] for trial in trial_folders(folder)]


@pytest.mark.slow
def test_fault_25_a_search_of_trainings_that_is_killed_has_the_results_of_an_undisturbed_one(tmp_path):
    prepare(compose(tiny_arguments(tmp_path)))
    alone = trainings(tmp_path, "alone")
    _, error = alone.communicate()
    assert alone.wait() == 0, error
    draw = random.Random(1)
    workers = [trainings(tmp_path, "killed") for _ in range(2)]
    wait_for_training(tmp_path / "runs/killed")
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
        worker.communicate()
        worker.wait()
    workers = [trainings(tmp_path, "killed") for _ in range(2)]
    for _ in range(6):
        time.sleep(draw.uniform(1, 6))
        victim = draw.randrange(2)
        os.kill(workers[victim].pid, signal.SIGKILL)
        workers[victim].communicate()
        workers[victim].wait()
        workers[victim] = trainings(tmp_path, "killed")
    for worker in workers:
        _, error = worker.communicate()
        assert worker.wait() == 0, error
    killed_search = tmp_path / "runs/killed"
    assert states(study_of(killed_search)) == ["COMPLETE"] * 4
    assert losses(killed_search) == losses(tmp_path / "runs/alone") and len(losses(killed_search)) == 4
    assert any("resuming from" in (trial / "train.log").read_text() for trial in trial_folders(killed_search))
