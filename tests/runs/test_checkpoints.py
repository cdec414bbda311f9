import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmft.errors import UserError
from lmft.runs.checkpoints import (
    BEST,
    LAST,
    checkpoints_by_age,
    checkpoints_by_step,
    checksum,
    checksum_file,
    is_valid,
    link_as,
    make_room,
    newest_valid,
    prune,
    recording_checksum,
    remove_leftovers,
)
from lmft.runs.folder import RunFolder
from lmft.runs.resume import newest_checkpoint
from lmft.system import files


def save(folder, step, content=None, names=(LAST,)):
    """A checkpoint of 100 bytes, and its further names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step={step}.ckpt"
    path.unlink(missing_ok=True)
    path.write_bytes(f"{step}".encode() * 100 if content is None else content)
    checksum_file(path).write_text(checksum(path))
    for name in names:
        link_as(path, name)
    return path


@pytest.fixture
def folder(tmp_path):
    """checkpoints/ of a run: steps 20, 40, 100, the first of them the best."""
    folder = tmp_path / "x" / "checkpoints"
    save(folder, 20, names=(LAST, BEST))
    save(folder, 40)
    save(folder, 100)
    return folder


def names(paths):
    return [path.name for path in paths]


def steps_in(folder):
    return [int(path.stem.removeprefix("step=")) for path in checkpoints_by_step(folder)]


def without_links(monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)


def test_checkpoints_in_order(folder):
    (folder / "step=x.ckpt").touch()
    (folder / "step=7.ckpt.writing").touch()
    (folder / "step=8.ckpt").mkdir()
    assert names(checkpoints_by_step(folder)) == ["step=20.ckpt", "step=40.ckpt", "step=100.ckpt"]
    assert checkpoints_by_step(folder / "missing") == [] and newest_valid(folder / "missing") == (None, [])


@pytest.mark.parametrize("linked", [True, False], ids=["links", "copies"])
def test_a_further_name(folder, monkeypatch, linked):
    if not linked:
        without_links(monkeypatch)
    for path in checkpoints_by_step(folder):
        for _ in range(2):  # the second time it has that name already
            link_as(path, LAST)
            assert is_valid(folder / LAST) and checksum(folder / LAST) == checksum(path)
            assert checksum_file(folder / LAST).read_text() == checksum(path)
            assert not list(folder.glob(".*"))
    assert (folder / LAST).samefile(path) == linked


@pytest.mark.parametrize("linked", [True, False], ids=["links", "copies"])
def test_whenever_naming_is_interrupted_the_name_is_of_a_valid_checkpoint(folder, monkeypatch, linked):
    """After each single change to the disk the process might be killed: what is there then is looked at."""
    seen = []

    def watched(change):
        def call(*args, **kwargs):
            result = change(*args, **kwargs)
            seen.append(is_valid(folder / LAST))
            return result

        return call

    if not linked:
        without_links(monkeypatch)
    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, watched(getattr(Path, name)))
    link_as(folder / "step=20.ckpt", LAST)
    assert len(seen) >= 3 and all(seen)
    assert checksum(folder / LAST) == checksum(folder / "step=20.ckpt")


def test_a_move_that_fails_leaves_what_was_there_valid(folder):
    with pytest.raises(OSError, match="no"), recording_checksum(folder / LAST, "0123456789abcdef"):
        raise OSError("no")
    assert is_valid(folder / LAST)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 299), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_anywhere_is_found_and_the_next_one_is_taken(folder, place, bit, cut):
    newest = save(folder, 100)
    with newest.open("r+b") as file:
        if cut:
            file.truncate(place)
        else:
            content = bytearray(file.read())
            content[place] ^= 1 << bit
            file.seek(0)
            file.write(content)
    found, wrong = newest_valid(folder)
    assert found == folder / "step=40.ckpt"
    assert [line.partition(" (")[0] for line in wrong] == ["last.ckpt is broken", "step=100.ckpt is broken"]


def test_damage_to_a_checksum_file_is_found(folder):
    for content in (b"", b"0123456789abcdef", b"\xff\xfe", None):
        for path in (folder / LAST, folder / "step=100.ckpt"):
            checksum_file(path).unlink() if content is None else checksum_file(path).write_bytes(content)
        assert newest_valid(folder)[0] == folder / "step=40.ckpt"


def test_a_file_of_several_names_is_read_once(folder, monkeypatch):
    read = []
    monkeypatch.setattr("lmft.runs.checkpoints.checksum", lambda path: read.append(path.name) or "another")
    assert newest_valid(folder)[0] is None
    assert read == [LAST, "step=40.ckpt", "step=20.ckpt"]
    read.clear()
    with pytest.raises(UserError, match=r"last\.ckpt is broken .*step=20\.ckpt is broken"):
        newest_checkpoint(RunFolder(folder.parent))


def test_steps_that_a_run_has_gone_back_from_are_the_oldest(folder):
    """The run was continued from step 40 again: what comes of it is newer than the old step 100."""
    save(folder, 60)
    assert names(checkpoints_by_age(folder)) == ["step=100.ckpt", "step=20.ckpt", "step=40.ckpt", "step=60.ckpt"]
    (folder / LAST).unlink()
    assert newest_valid(folder)[0] == folder / "step=60.ckpt"
    prune(folder, keep_last=2)
    assert steps_in(folder) == [40, 60]


@pytest.mark.parametrize(
    ("keep_last", "left"), [(-1, [20, 40, 100]), (5, [20, 40, 100]), (2, [40, 100]), (1, [100]), (0, [100])]
)
def test_pruning_keeps_the_newest(folder, keep_last, left):
    removed = prune(folder, keep_last)
    assert steps_in(folder) == left and len(removed) == 3 - len(left)
    assert is_valid(folder / LAST) and is_valid(folder / BEST)
    assert {path.name for path in folder.iterdir()} == {
        f"{name}{ending}" for name in (BEST, LAST, *(f"step={step}.ckpt" for step in left)) for ending in ("", ".xxh3")
    }


def test_pruning_to_a_disk_budget(folder):
    """Step 20, 200 bytes, is the best and step 100, 300 bytes, the newest: both stay whatever the budget."""
    for budget, left in ((700, [20, 40, 100]), (699, [20, 100]), (1, [20, 100])):
        prune(folder, -1, max_disk_gb=budget / 1e9)
        assert steps_in(folder) == left
    save(folder, 200)
    assert names(prune(folder, 2, max_disk_gb=500 / 1e9)) == ["step=20.ckpt", "step=100.ckpt"]
    assert is_valid(folder / LAST) and is_valid(folder / BEST)


def test_nothing_else_is_ever_removed(folder, tmp_path):
    others = [folder / name for name in ("notes.txt", "step=1.ckpt.old", "step=x.ckpt", "my.ckpt")]
    for path in others:
        path.touch()
    (folder / "step=3.ckpt").mkdir()
    prune(folder, 1, 1e-9)
    make_room(folder)
    remove_leftovers(folder)
    assert all(path.exists() for path in (*others, folder / "step=3.ckpt"))


def test_what_lies_outside_the_runs_folder_is_left_alone(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(folder, elsewhere)
    (elsewhere / ".step=1.ckpt.7.writing").touch()
    folder.symlink_to(elsewhere)
    before = sorted(elsewhere.iterdir())
    assert prune(folder, 1, 1e-9) == make_room(folder) == remove_leftovers(folder) == []
    assert sorted(elsewhere.iterdir()) == before
    assert newest_valid(folder)[0] == folder / LAST  # reading it is another matter
    linked = tmp_path / "linked"  # a whole run may lie on another disk
    linked.symlink_to(folder.parent)
    folder.unlink()
    shutil.move(elsewhere, folder)
    assert names(prune(linked / "checkpoints", 1)) == ["step=20.ckpt", "step=40.ckpt"]


def test_making_room_keeps_the_newest_valid_one_and_the_best(folder):
    save(folder, 60)
    (folder / LAST).unlink()
    (folder / "step=100.ckpt").write_bytes(b"broken")
    assert names(make_room(folder)) == ["step=100.ckpt", "step=40.ckpt"]
    assert steps_in(folder) == [20, 60] and is_valid(folder / BEST)
    assert make_room(folder) == []
    for path in folder.glob("*.ckpt"):
        path.write_bytes(b"broken")
    assert make_room(folder) == [], "nothing is given up for the sake of a file that may fail too"


def test_litter_is_swept(folder):
    before = sorted(folder.iterdir())
    (folder / ".step=120.ckpt.7.writing").touch()
    (folder / "step=120.ckpt.xxh3").touch()
    assert len(remove_leftovers(folder)) == 2 and sorted(folder.iterdir()) == before


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    for text in ("old", "new ü"):
        files.write_text(path, text)
        assert path.read_text("utf-8") == text
    for error in (OSError, KeyboardInterrupt):
        with pytest.raises(error), files.atomic_write(path) as file:
            file.write(b"half")
            raise error
    assert path.read_text("utf-8") == "new ü" and list(tmp_path.iterdir()) == [path]
