"""Each gesture of docs/hydra-and-lightning.md, typed; its row of the page is what became of it."""

import pytest

from tests.helpers import gestures
from tests.helpers.gestures import ALL, Gesture, typed


@pytest.fixture(scope="module")
def folder():
    with gestures.place() as folder:
        yield folder


@pytest.mark.parametrize("gesture", ALL, ids=lambda gesture: gesture.typed)
def test_a_gesture_does_what_the_page_says(gesture: Gesture, folder):
    before = sorted(folder.rglob("*"))
    outcome = typed(gesture.typed)
    assert gestures.row(gesture, outcome) in gestures.written().splitlines()
    if gesture.refused:
        assert outcome.code == 2 and outcome.configs == []
        assert gesture.refused in outcome.error and outcome.error.count("\n") <= 3
        assert sorted(folder.rglob("*")) == before
    elif gesture.prints:
        assert gesture.prints in outcome.out and outcome.configs == [] and "SECRET" not in outcome.out
        assert sorted(folder.rglob("*")) == before
    else:
        found = outcome.values(gesture.jobs[0])
        if "shuffle" in gesture.typed:
            found.sort(key=str)
        assert found == list(gesture.jobs) and outcome.code == 0 and outcome.error == ""


def test_the_page_has_no_other_rows():
    rows = {line.split("` |")[0]: line for line in gestures.written().splitlines() if line.startswith("| `")}
    assert gestures.written() == gestures.section({each.typed: rows[gestures.row_begin(each)] for each in ALL})


def test_gestures_are_listed_once():
    assert len({each.typed for each in ALL}) == len(ALL) > 100
