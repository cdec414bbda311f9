"""Row 25: SIGKILL at any moment of a search on which two processes work."""

import os
import random
import signal
import time

import pytest

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
