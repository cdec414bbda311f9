"""A run continues with what it began with; what may change is said, what may not is refused."""

import logging

import pytest

from lmft.errors import UserError
from lmft.runs.resume import FREE, check_bound, log_changes
from tests.helpers.runs import tiny


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("text"))


def changed(config, key, value):
    """The config with another value at a key."""
    head, _, rest = key.partition(".")
    return {**config, head: changed(config.get(head, {}), rest, value) if rest else value}


@pytest.mark.parametrize(
    ("key", "value"), [("trainer.max_epochs", 9), ("data.num_workers", 2), ("checkpoint.keep_last", 5)]
)
def test_what_may_change_is_said(recorded, key, value, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        check_bound(recorded, changed(recorded, key, value), tmp_path)
        log_changes(recorded, changed(recorded, key, value), tmp_path)
    assert f"{key}: " in caplog.text and f"→ {value}" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("data.block_size", 64),
        ("data.train", "other.txt"),
        ("objective.mlm_probability", 0.55),
        ("optimizer.lr", 1.0),
        ("scheduler.name", "cosine"),
        ("model.config.dim", 64),
        ("model.lora.r", 4),
    ],
)
def test_what_makes_another_training_is_refused(recorded, key, value, tmp_path):
    with pytest.raises(UserError, match=f"{key}: .* → {value}") as error:
        check_bound(recorded, changed(recorded, key, value), tmp_path / "step=3.ckpt")
    assert "step=3.ckpt" in str(error.value) and "run.name=NEW" in str(error.value)


def in_run(folder, name="g"):
    """The config.yaml of a run that was started in `folder`."""
    path = folder / "runs" / name / "config.yaml"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.parametrize(
    ("key", "name", "now"),
    [
        ("data.train", "my.txt", "../my.txt"),
        ("data.train", "*.txt", ["../*.txt"]),
        ("model.name_or_path", "base", "../base"),
        ("data.sources.own.train", "my.txt", "../my.txt"),
    ],
)
def test_another_path_to_the_same_place_is_no_change(recorded, key, name, now, tmp_path, monkeypatch, caplog):
    (tmp_path / "my.txt").write_text("A tide.\n")
    for folder in ("base", "elsewhere"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = {**changed(recorded, key, name), "run": {"dir": "runs", "name": "g"}}
    after = {**changed(recorded, key, now), "run": {"dir": str(tmp_path / "runs"), "name": "g"}}
    with caplog.at_level(logging.INFO):
        config = in_run(tmp_path)
        check_bound(before, after, config)
        log_changes(before, after, config)
    assert not caplog.text
    with pytest.raises(UserError, match=key):
        check_bound(before, changed(after, key, "../other"), config)


def test_a_text_of_the_same_name_elsewhere_is_said_and_a_model_is_refused(recorded, tmp_path, caplog):
    config = in_run(tmp_path)
    moved = changed(changed(recorded, "data.train", "a/my.txt"), "run.dir", "/absolute")
    with caplog.at_level(logging.INFO):
        check_bound(moved, changed(moved, "data.train", "b/my.txt"), config)
        log_changes(moved, changed(moved, "data.train", "b/my.txt"), config)
    assert "changed since this run was started: data.train: a/my.txt → b/my.txt" in caplog.text
    with pytest.raises(UserError, match=r"model\.name_or_path"):
        check_bound(changed(moved, "model.name_or_path", "a/m"), changed(moved, "model.name_or_path", "b/m"), config)


def test_nothing_changed_is_nothing_said(recorded, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        log_changes(recorded, dict(recorded), tmp_path)
    assert not caplog.text


def test_what_may_change_is_there(recorded):
    """A key that has been renamed would be refused without anybody's noticing."""
    for key in FREE:
        node = recorded
        for part in key.split("."):
            assert part in node, key
            node = node[part]
