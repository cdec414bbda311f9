"""What is said of a folder that is no run's."""

import os

import pytest

from lmft.errors import UserError
from lmft.runs.folder import checked_dir, existing_run


def a_run(folder, number=0):
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    os.utime(folder / "config.yaml", (1e9 + number, 1e9 + number))


def refused(path):
    with pytest.raises(UserError) as error:
        existing_run(path)
    return str(error.value)


def test_a_sweep_is_no_run_but_has_jobs(tmp_path):
    for seed in (1, 2):
        a_run(tmp_path / "runs/sw" / f"seed={seed}", seed)
    (tmp_path / "runs/sw/sweep.csv").touch()
    said = refused(tmp_path / "runs/sw")
    assert "sw is a sweep, not a run" in said and f"{tmp_path}/runs/sw/seed=2, {tmp_path}/runs/sw/seed=1" in said
    assert "is a folder of runs" in refused(tmp_path / "runs")


def test_the_newest_runs_are_named_and_the_others_counted(tmp_path):
    for number in range(11):
        a_run(tmp_path / f"run-{10 - number:02}", number)
    said = refused(tmp_path / "other")
    assert f"runs there: {tmp_path}/run-00, {tmp_path}/run-01, " in said and said.endswith("run-07 and 3 more")


def test_the_most_similar_name_is_asked_for(tmp_path):
    a_run(tmp_path / "runs/first")
    assert f"did you mean '{tmp_path}/runs/first'" in refused(tmp_path / "runs/fisrt")
    assert "did you mean" not in refused(tmp_path / "runs/x")


def test_a_folder_of_runs_is_on_a_disk(tmp_path):
    with pytest.raises(UserError, match="s3:// is other storage"):
        checked_dir("s3://bucket/runs")
    assert checked_dir(f"file://{tmp_path}") == checked_dir(tmp_path) == tmp_path
