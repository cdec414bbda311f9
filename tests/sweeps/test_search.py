"""Searches: how trials get their values, what the search is told, when it ends, and how it continues."""

import os
import time

import pytest
from hydra.errors import ConfigCompositionException

from lmft.errors import UserError
from lmft.sweeps import search as searching
from lmft.sweeps.journal import JOURNAL
from lmft.sweeps.search import folder_name, num_without_improvement
from tests.helpers.searches import STEPS, Launcher, forked, lines, quadratic, search, states, study_of, trial_folders

X = "x=interval(-1.0,1.0)"
Y = "y=interval(-1.0,1.0)"


def params(study):
    return [trial.params for trial in study.trials]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_each_sampler_searches(sampler, tmp_path):
    study = search(tmp_path, X, Y, num_trials=12, sampler=sampler, startup_trials=4)
    assert states(study) == ["COMPLETE"] * 12 and study.best_value < 0.5
    assert len({tuple(each.items()) for each in params(study)}) == 12


def test_a_grid_tries_every_combination_once_in_order(tmp_path):
    study = search(tmp_path, "x=0,1,2", "y=range(-1,1,0.5)", num_trials=100, sampler="grid")
    expected = [{"x": x, "y": y} for x in "012" for y in (-1.0, -0.5, 0.0, 0.5)]
    assert params(study) == expected and study.best_params == {"x": "0", "y": -0.5}


def test_what_a_grid_leaves_out_is_told(tmp_path, caplog):
    caplog.set_level("INFO", logger="lmft")
    study = search(tmp_path, "x=1,2,3", launcher=Launcher(lambda values: 1.0), num_trials=2, sampler="grid")
    assert len(study.trials) == 2
    assert "the grid has 3 combinations, of which sweep.num_trials=2 leaves out the last 1" in caplog.text


def test_a_grid_that_is_continued_goes_on_where_it_was(tmp_path):
    search(tmp_path, "x=0,1", "y=0,1", num_trials=3, sampler="grid")
    study = search(tmp_path, "x=0,1", "y=0,1", num_trials=4, sampler="grid")
    assert params(study) == [{"x": x, "y": y} for x in "01" for y in "01"]


@pytest.mark.slow  # half a minute
def test_tpe_finds_a_better_minimum_than_chance_in_nine_of_ten_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)

    def best(sampler, seed):
        folder = tmp_path / f"{sampler}-{seed}"
        return search(folder, X, Y, num_trials=64, sampler=sampler, seed=seed).best_value

    best_values = [(best("tpe", seed), best("random", seed)) for seed in range(10)]
    print(best_values)
    assert sum(tpe < chance for tpe, chance in best_values) >= 9


def test_a_continued_search_samples_as_an_undisturbed_one(tmp_path):
    whole = search(tmp_path / "whole", X, Y, num_trials=14)
    for num_trials in (3, 3, 11, 14):
        parts = search(tmp_path / "parts", X, Y, num_trials=num_trials)
        assert len(parts.trials) == num_trials
    assert params(parts) == params(whole)


def test_a_failed_trial_is_recorded_and_the_search_goes_on(tmp_path):
    def formula(values):
        if values["x"] < 0:
            raise RuntimeError("out of memory")
        return quadratic(values)

    study = search(tmp_path, X, Y, launcher=Launcher(formula), num_trials=10)
    failed = [trial for trial in study.trials if trial.params["x"] < 0]
    assert failed and all(trial.state.name == "FAIL" for trial in failed)
    assert {trial.user_attrs["error"] for trial in failed} == {"out of memory"}
    assert sorted(states(study)) == ["COMPLETE"] * (10 - len(failed)) + ["FAIL"] * len(failed)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_trial_without_a_finite_loss_has_failed(loss, tmp_path):
    study = search(tmp_path, X, launcher=Launcher(lambda values: loss), num_trials=2)
    assert states(study) == ["FAIL", "FAIL"]


def test_several_numbers_are_minimised(tmp_path):
    study = search(tmp_path, X, Y, num_trials=8, minimise=["loss", "seconds"])
    assert all(sum(trial.values) == pytest.approx(10) for trial in study.trials)
    assert len(study.best_trials) == 8, "where one number is better the other one is worse"


def test_patience_ends_a_search_that_no_longer_improves(tmp_path):
    losses = iter([5.0, 4.0, 4.0, 6.0, 3.0, 9.0, 9.0, 9.0])
    launcher = Launcher(lambda values: next(losses))
    study = search(tmp_path, X, launcher=launcher, num_trials=50, patience=3)
    assert [trial.value for trial in study.trials] == [5, 4, 4, 6, 3, 9, 9, 9]
    assert num_without_improvement(study) == 3
    again = search(tmp_path, X, launcher=launcher, num_trials=50, patience=3)
    assert len(again.trials) == 8, "continued, it has not more patience"


def test_no_trial_begins_after_the_time_is_over(tmp_path):
    launcher = Launcher(nap=0.02)
    study = search(tmp_path, X, Y, launcher=launcher, num_trials=50, max_hours=0.35 / 3600)
    num_trials = len(study.trials)
    assert 1 <= num_trials < 10 and set(states(study)) == {"COMPLETE"}
    more = search(tmp_path, X, Y, launcher=launcher, num_trials=50, max_hours=0.35 / 3600)
    assert len(more.trials) > num_trials


def test_values_that_were_tried_are_not_trained_again(tmp_path):
    launcher = Launcher(lambda values: float(values["x"]))
    study = search(tmp_path, "x=1,2", launcher=launcher, num_trials=12, sampler="random")
    assert len(launcher.launched) == 2 == len(trial_folders(tmp_path))
    assert all(trial.value == float(trial.params["x"]) for trial in study.trials)


def test_a_launcher_gets_as_many_trials_as_it_runs_side_by_side(tmp_path):
    launcher = Launcher()
    study = search(tmp_path, X, Y, launcher=launcher, num_trials=7, num_parallel=3)
    assert [len(jobs) for jobs in launcher.launched] == [3, 3, 1] and states(study) == ["COMPLETE"] * 7


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_a_trial_that_cannot_be_composed_has_failed(num_parallel, tmp_path):
    class Composing(Launcher):
        def launch(self, jobs, initial_job_idx):
            if any("x=2" in job for job in jobs):
                raise ConfigCompositionException("no such YAML")
            return super().launch(jobs, initial_job_idx)

    launcher = Composing(lambda values: 1.0)
    study = search(tmp_path, "x=1,2,3", launcher=launcher, sampler="grid", num_parallel=num_parallel)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs["error"] == "no such YAML"


def test_what_a_dead_process_left_unfinished_is_taken_over(tmp_path):
    class Dying(Launcher):
        def launch(self, jobs, initial_job_idx):
            if initial_job_idx == 2:
                raise KeyboardInterrupt
            return super().launch(jobs, initial_job_idx)

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, X, Y, launcher=Dying(), num_trials=4)
    left = study_of(tmp_path).trials
    assert [trial.state.name for trial in left] == ["COMPLETE", "COMPLETE", "RUNNING"]
    study = search(tmp_path, X, Y, num_trials=4)
    assert states(study) == ["COMPLETE"] * 4
    assert params(study)[:3] == [trial.params for trial in left]


def test_a_trial_whose_process_died_before_it_told_is_not_trained_again(tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(searching, "_tell", dies)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path, X, Y, num_trials=2)
    launcher = Launcher()
    study = search(tmp_path, X, Y, launcher=launcher, num_trials=2)
    assert states(study) == ["COMPLETE"] * 2 and len(launcher.launched) == 1


def test_a_torn_last_line_of_the_journal_is_removed(tmp_path):
    search(tmp_path, X, Y, num_trials=2)
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study = search(tmp_path, X, Y, num_trials=4)
    assert states(study) == ["COMPLETE"] * 4


def test_a_search_of_other_values_is_refused(tmp_path):
    search(tmp_path, X, Y, num_trials=1)
    for changed in ({"arguments": (X,)}, {"arguments": (X, "y=interval(0.0,1.0)")}, {"minimise": "seconds"}):
        arguments = changed.pop("arguments", (X, Y))
        with pytest.raises(UserError, match="search of other values"):
            search(tmp_path, *arguments, num_trials=2, **changed)


def test_other_arguments_are_told(tmp_path, caplog):
    search(tmp_path, X, "data.batch_size=8", num_trials=1)
    search(tmp_path, X, "data.batch_size=16", num_trials=2)
    assert "data.batch_size=16; data.batch_size=8" in caplog.text


def test_two_searches_at_once_share_the_trials(tmp_path):
    launcher = Launcher(nap=0.01)
    other = forked(lambda: search(tmp_path, X, Y, launcher=launcher, num_trials=12))
    time.sleep(0.02)
    search(tmp_path, X, Y, launcher=launcher, num_trials=12)
    assert os.waitpid(other, 0)[1] == 0
    assert states(study_of(tmp_path)) == ["COMPLETE"] * 12
    assert len({line.split()[1] for folder in trial_folders(tmp_path) for line in lines(folder / STEPS)}) == 2


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"optimizer.lr": "0.000123456"}, "007,optimizer.lr=0.0001235"),
        ({"data.block_size": "99999"}, "007,data.block_size=99999"),
        ({"+model.x": "a b"}, "007,model.x=a-b"),
        ({"a": "x" * 300}, "007,a=" + "x" * 114),
        ({"logger.api_key": "1"}, "007"),
        ({"data.path": "../.."}, "007,data.path="),
        ({}, "007"),
    ],
)
def test_names_of_trials(values, name):
    assert folder_name(7, values) == name
