"""A run goes on with what it began with; what may change is said, what may not is refused."""

import logging

import pytest

from lmft.errors import UserError
from lmft.runs.resume import FREE, check_changes
from tests.helpers.runs import tiny


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("text"))


def changed(config, key, value):
    """The config with another value at a key."""
    head, _, rest = key.partition(".")
    return {**config, head: changed(config[head], rest, value) if rest else value}


@pytest.mark.parametrize(
    ("key", "value"), [("trainer.max_epochs", 9), ("data.num_workers", 2), ("checkpoint.keep_last", 5)]
)
def test_what_may_change_is_said(recorded, key, value, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        check_changes(recorded, changed(recorded, key, value), tmp_path)
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
        check_changes(recorded, changed(recorded, key, value), tmp_path / "step=3.ckpt")
    assert "step=3.ckpt" in str(error.value) and "run.name=NEW" in str(error.value)


def test_nothing_changed_is_nothing_said(recorded, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        check_changes(recorded, dict(recorded), tmp_path)
    assert not caplog.text


def test_what_may_change_is_there(recorded):
    """A key that has been renamed would be refused without anybody's noticing."""
    for key in FREE:
        node = recorded
        for part in key.split("."):
            assert part in node, key
            node = node[part]
