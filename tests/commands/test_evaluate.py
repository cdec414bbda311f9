"""An evaluation of a run: its scores, and its losses by class."""

import json

import pytest

from lmft.commands.evaluate import main
from lmft.system.files import read_json
from tests.helpers.runs import train

WAYS = ("by_frequency", "by_length", "by_position")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def run(folder):
    run, _ = train(folder, "run.name=evaluated", "trainer.max_epochs=1", "optimizer.lr=0.01")
    return run


def evaluated(run, folder, *overrides):
    output = folder / "scores.json"
    main([f"run={run.folder}", f"data.cache_dir={folder}/cache", "trainer=cpu", f"output={output}", *overrides])
    return json.loads(output.read_text())


def test_the_losses_of_a_runs_model_by_class_are_those_at_the_end_of_its_training(run, folder, capfd):
    found = evaluated(run, folder, "trainer.precision=32-true", "breakdown=true")
    at_end = read_json(run.paths.details)
    assert found["breakdown"]["which"] == "evaluated"
    for way in WAYS:
        ours, theirs = found["breakdown"]["texts"][0][way], at_end["texts"][0][way]
        assert [each["label"] for each in ours] == [each["label"] for each in theirs]
        for name in ("targets", "before", "after", "low", "high"):
            assert [each[name] for each in ours] == pytest.approx([each[name] for each in theirs], abs=1e-6), name
    assert list(found["data"]) == ["validation"]
    printed = capfd.readouterr().out
    assert "loss by how often the token occurs in the training text" in printed
    assert "loss by the tokens of the document" in printed
    assert "95% interval" in printed


def test_on_other_text_the_losses_have_no_change(run, folder, capfd):
    other = folder / "other.txt"
    other.write_text("the movie was good\nno one knows the film\n" * 5)
    found = evaluated(run, folder, f"data.validation={other}", "breakdown=true")
    (text,) = found["breakdown"]["texts"]
    assert text["before"] is None and text["after"] == pytest.approx(found["validation"]["loss"], rel=1e-6)
    assert "nats per target" in capfd.readouterr().out


def test_without_breakdown_there_are_scores_alone(run, folder):
    assert "breakdown" not in evaluated(run, folder)
