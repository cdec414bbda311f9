import errno
import os
import pickle
import random
import resource
import shutil
import signal
import tempfile
import time

import pytest
import torch

from lmft.errors import UserError
from lmft.runs import saving
from lmft.runs.checkpoint_io import AtomicCheckpointIO
from lmft.runs.checkpoints import BEST, LAST, checkpoints_by_step, checksum, checksum_file, is_valid, link_as
from lmft.system.signals import Stopped
from tests.helpers.faults import fill_disk

IO = AtomicCheckpointIO()


def save(folder, step, value=None):
    """As a training does: a checkpoint of about 6 kB, which is then also the last."""
    path = folder / f"step={step}.ckpt"
    state = {"global_step": step if value is None else value, "state_dict": {"w": torch.full((1000,), 0.5)}}
    IO.save_checkpoint(state, path)
    link_as(path, LAST)
    return path


def step_of(path):
    return IO.load_checkpoint(path)["global_step"]


def assert_whole(folder, *names):
    """Those checkpoints are there, each with the checksum of its content, and nothing else."""
    assert {path.name for path in folder.iterdir()} == {name + ending for name in names for ending in ("", ".xxh3")}
    for name in names:
        assert checksum_file(folder / name).read_text() == checksum(folder / name)


@pytest.fixture
def folder(tmp_path):
    """checkpoints/ of a run: steps 1, 2 and 3, the first of them the best."""
    folder = tmp_path / "checkpoints"
    link_as(save(folder, 1), BEST)
    save(folder, 2)
    save(folder, 3)
    return folder


ALL = (BEST, LAST, "step=1.ckpt", "step=2.ckpt", "step=3.ckpt")


def test_what_is_saved_is_read(folder):
    assert_whole(folder, *ALL)
    assert step_of(folder / LAST) == 3 and step_of(folder / BEST) == 1
    assert torch.equal(IO.load_checkpoint(folder / LAST)["state_dict"]["w"], torch.full((1000,), 0.5))
    save(folder, 3, value=30)
    assert_whole(folder, *ALL)
    assert step_of(folder / "step=3.ckpt") == step_of(folder / LAST) == 30


def test_removing_a_checkpoint_leaves_the_others_whole(folder):
    IO.remove_checkpoint(folder / "step=2.ckpt")
    assert_whole(folder, BEST, LAST, "step=1.ckpt", "step=3.ckpt")


def test_nothing_is_written_anywhere_else(folder, tmp_path, monkeypatch):
    """A temporary folder may lie on another disk, from which there is no moving in one step."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    save(folder, 4)
    assert_whole(folder, *ALL, "step=4.ckpt")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_process_that_is_killed_while_it_saves_leaves_whole_checkpoints(folder):
    """Twenty kills. What had been saved is there, or what was being saved; no file is ever broken."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    saved = 3
    for _ in range(20):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                for value in range(saved + 1, 1 << 30):
                    save(folder, value % 3 + 1, value)  # each replaces an older one
                    os.write(writing, b".")
            finally:
                os._exit(1)
        os.close(writing)
        os.read(reading, 1)  # it is at it
        time.sleep(draw.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        saved += 1
        while more := os.read(reading, 4096):
            saved += len(more)
        os.close(reading)
        assert all(map(is_valid, folder.glob("*.ckpt")))
        assert saved <= step_of(folder / LAST) <= saved + 1
        saved = step_of(folder / LAST)


def test_a_full_disk_is_made_room_on(folder, caplog):
    (folder / f".step=4.ckpt.{os.getpid()}.writing").symlink_to("/dev/full")  # full, and then no more
    save(folder, 4)
    assert_whole(folder, BEST, LAST, "step=1.ckpt", "step=3.ckpt", "step=4.ckpt")
    assert "the disk is full: step=2.ckpt removed to make room for step=4.ckpt" in caplog.text


@pytest.mark.parametrize("free_bytes", [0, 3, 1000, 3000, 5000])
def test_wherever_writing_fails_the_rest_stays_and_room_is_made(folder, monkeypatch, free_bytes):
    fill_disk(folder, monkeypatch, free_bytes)
    save(folder, 4)
    assert_whole(folder, BEST, LAST, "step=1.ckpt", "step=3.ckpt", "step=4.ckpt")


def test_a_disk_that_stays_full(folder, monkeypatch, caplog):
    (folder / "step=2.ckpt").unlink()
    checksum_file(folder / "step=2.ckpt").unlink()
    fill_disk(folder, monkeypatch, 3000)
    with pytest.raises(UserError) as error:
        save(folder, 4)
    assert_whole(folder, BEST, LAST, "step=1.ckpt", "step=3.ckpt")  # the best is never given up
    what, where, fix = str(error.value).splitlines()
    assert what == "the disk is full: step=4.ckpt could not be written"
    assert str(folder) in where and "last.ckpt takes 0 MB" in where
    assert fix == "  fix:   free some space; the same command resumes from last.ckpt"
    assert not caplog.records


def test_a_disk_that_is_full_from_the_start(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    fill_disk(folder, monkeypatch, 3000)
    with pytest.raises(UserError, match="disk is full") as error:
        save(folder, 1)
    assert "starts over" in str(error.value) and list(folder.iterdir()) == []


def test_a_file_that_may_not_grow(folder):
    """Errors of the system that are no full disk are said as they are, and cost no older checkpoint."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        with pytest.raises(UserError, match=r"step=4\.ckpt could not be written: File too large") as error:
            save(folder, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "resumes from last.ckpt" in str(error.value)
    assert_whole(folder, *ALL)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written(folder, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("lmft.runs.saving.io.FileIO", refuse)
    with pytest.raises(UserError, match=os.strerror(number)) as error:
        save(folder, 4)
    assert "make the folder writable" in str(error.value)


def test_a_runs_folder_that_vanished(tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    folder.parent.mkdir()
    save(folder, 1)
    shutil.rmtree(folder)
    save(folder, 2)  # of the run nothing else is gone
    shutil.rmtree(folder.parent)
    with pytest.raises(UserError, match=r"step=3\.ckpt could not be written") as error:
        save(folder, 3)
    assert f"{folder} is gone" in str(error.value) and list(tmp_path.iterdir()) == []


def test_while_the_run_is_there_folders_are_made_with_their_parents(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    target = run / "lightning" / "checkpoints" / "best-val" / "loss=1.ckpt"
    AtomicCheckpointIO(run).save_checkpoint({"step": 1}, target)
    assert target.exists()
    shutil.rmtree(run)
    with pytest.raises(UserError, match="could not be written"):
        AtomicCheckpointIO(run).save_checkpoint({"step": 2}, target)
    assert not run.exists()


def test_an_error_that_is_not_the_disks_is_raised_as_it_is(folder):
    with pytest.raises(Exception, match="pickle") as error:
        IO.save_checkpoint({"f": lambda: None}, folder / "step=4.ckpt")
    assert not isinstance(error.value, UserError)
    assert_whole(folder, *ALL)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("asked_for", [True, False, None])
def test_code_in_a_checkpoint_is_not_run(tmp_path, zipped, asked_for):
    path, mark = tmp_path / "x.ckpt", tmp_path / "was-run"
    state = {"global_step": 1, "state_dict": Payload(str(mark))}
    torch.save(state, path) if zipped else path.write_bytes(pickle.dumps(state, protocol=2))
    with pytest.raises(UserError, match=str(path)) as error:
        IO.load_checkpoint(path, weights_only=asked_for)
    assert "only tensors and plain values are read" in str(error.value) and len(str(error.value).splitlines()) == 2
    assert not mark.exists()


def test_a_file_that_is_no_checkpoint_is_said(folder):
    whole = checkpoints_by_step(folder)[0].read_bytes()
    draw = random.Random(0)
    broken = [b"", b"text", whole[:-1], whole[1:], *(whole[: draw.randrange(len(whole))] for _ in range(30))]
    for content in broken:
        (folder / "x.ckpt").write_bytes(content)
        with pytest.raises(UserError, match=r"x\.ckpt"):
            IO.load_checkpoint(folder / "x.ckpt")
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        (folder / "x.ckpt").write_bytes(flipped)
        try:
            IO.load_checkpoint(folder / "x.ckpt")  # may be read, if the bit is none that matters for that
        except UserError as error:
            assert len(str(error).splitlines()) <= 3


def test_a_signal_while_it_is_written_is_raised_as_itself(tmp_path, monkeypatch):
    save(tmp_path, 1)
    write = saving._Sink.write

    def interrupted(sink, buffer):
        if len(buffer) > 1000:  # the weights
            write(sink, buffer[:100])
            raise Stopped(signal.SIGTERM)
        return write(sink, buffer)

    monkeypatch.setattr(saving._Sink, "write", interrupted)
    with pytest.raises(Stopped):
        save(tmp_path, 2)
    assert_whole(tmp_path, "step=1.ckpt", LAST)
