"""A place in an epoch, in other micro-batches."""

import pytest

from lmft.data.schedule.layout import Layout, limited
from lmft.errors import UserError

TWO_DEVICES = Layout(100, 4, 1, 2)  # 13 micro-batches of 8 examples, on both devices together
ONE_DEVICE = Layout(100, 4, 2, 1)  # 25 of 4 examples


def counts(ready, completed):
    return {"ready": ready, "started": ready, "processed": ready, "completed": completed}


@pytest.mark.parametrize(
    ("place", "moved"), [(0, 0), (1, 2), (12, 24), (13, 25)], ids=["begin", "first step", "amid", "end"]
)
def test_the_same_step_is_elsewhere(place, moved):
    assert ONE_DEVICE.position(place, before=TWO_DEVICES) == moved
    assert TWO_DEVICES.position(moved, before=ONE_DEVICE) == place


@pytest.mark.parametrize("unfinished", [0, 1], ids=["at the epoch's end", "at a batch's end"])
def test_the_trainers_counts_move_with_it(unfinished):
    progress = {"total": counts(13 + 3, 16 - unfinished), "current": counts(3, 3 - unfinished)}
    ONE_DEVICE.convert_counters(progress, before=TWO_DEVICES)
    assert progress == {"total": counts(25 + 6, 31 - unfinished), "current": counts(6, 6 - unfinished)}
    TWO_DEVICES.convert_counters(progress, before=ONE_DEVICE)
    assert progress == {"total": counts(16, 16 - unfinished), "current": counts(3, 3 - unfinished)}


def test_counts_amid_a_step_stay_where_nothing_has_changed():
    progress = {"total": counts(26, 26), "current": counts(1, 1)}
    ONE_DEVICE.convert_counters(progress, before=ONE_DEVICE)
    assert progress == {"total": counts(26, 26), "current": counts(1, 1)}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Layout(100, 4, 2, 2), "step has 16 examples, in the checkpoint 8"),
        (Layout(100, 8, 1, 1, limit=10), "limit_train_batches"),
    ],
)
def test_what_would_be_other_steps_is_refused(other, message):
    with pytest.raises(UserError, match=message):
        other.check_same_steps(ONE_DEVICE)


@pytest.mark.parametrize(
    ("num_batches", "limit", "left"),
    [(9, 1.0, 9), (9, 0.5, 4), (9, 0.05, 1), (1, 0.99, 1), (9, 1, 1), (9, 20, 9), (9, 0, 0), (9, 0.0, 0), (0, 0.5, 0)],
)
def test_a_share_above_none_is_one_batch_at_least(num_batches, limit, left):
    assert limited(num_batches, limit) == left
    assert Layout(num_batches * 4, 4, 1, 1, limit).num_used == left


def test_a_limit_that_leaves_all_is_none():
    Layout(100, 8, 1, 1, limit=50).check_same_steps(ONE_DEVICE)
    with pytest.raises(UserError, match="limit_train_batches"):
        Layout(100, 8, 1, 1, limit=1).check_same_steps(ONE_DEVICE)
