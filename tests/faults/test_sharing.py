"""Row 27, and what else many runs share: one run's folder, one cache, one disk."""

import errno
import os
import shutil
import signal
import socket
import time

import pytest

from lmft.data.store import StoreWriter
from lmft.modules.base import LanguageModel
from tests.helpers.processes import contents
from tests.helpers.resuming import assert_same
from tests.helpers.runs import start, tiny_arguments, train, write_text

pytestmark = pytest.mark.timeout(120)

OPTIONS = ("model.config.dropout=0.3", "checkpoint.every_n_steps=1")


@pytest.fixture
def undisturbed(terminal):
    """A run that nothing happens to."""
    return train(terminal.folder, "run.name=undisturbed", *OPTIONS)[0]


def busy_training(folder, *overrides):
    """The process of a training that has come to its fifth step, and stays there."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        assert os.read(reading, 1) == b"."
        os.close(reading)
        return pid
    train_on = LanguageModel.training_step

    def waits(self, batch, batch_idx):
        if self.trainer.global_step == 4:
            os.write(writing, b".")
            time.sleep(100)
        return train_on(self, batch, batch_idx)

    try:
        pytest.MonkeyPatch().setattr(LanguageModel, "training_step", waits)
        train(folder, *overrides)
    finally:
        os._exit(1)


def test_fault_27_a_run_is_one_processs_until_that_is_dead(terminal, undisturbed):
    command = ("run.name=shared", *OPTIONS)
    pid = busy_training(terminal.folder, *command)
    try:
        said = terminal.refuses_to_train(*command)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert "is in use" in said and f"process {pid} on {socket.gethostname()} since" in said
    terminal.trains(*command)  # the lock's file is still there; the lock is not
    assert_same(terminal.ended("shared"), undisturbed)


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_only(path, *_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


def test_a_full_disk_under_the_cache_is_said_and_leaves_nothing_half_built(terminal, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "append", no_space)
        assert "no space left on device" in terminal.refuses("prepare", *tiny_arguments(terminal.folder))
    stores = contents(terminal.folder / "cache" / "stores")
    assert all(path.endswith(".lock") for path in stores)
    terminal.succeeds("prepare", *tiny_arguments(terminal.folder))


def test_a_cache_that_cannot_be_written_to_is_read(terminal, monkeypatch):
    command = ("prepare", *tiny_arguments(terminal.folder))
    terminal.succeeds(*command)
    memo = terminal.folder / "cache" / "fingerprints.json"  # written once a file has not changed for two seconds
    memo.unlink(missing_ok=True)
    before = contents(terminal.folder / "cache")
    monkeypatch.setattr("lmft.system.cache.FileLock", read_only)
    terminal.succeeds(*command)
    memo.unlink(missing_ok=True)
    assert contents(terminal.folder / "cache") == before
    said = terminal.refuses(*command, "data.cache_dir=elsewhere")
    assert "cannot write to the cache" in said and "data.cache_dir=FOLDER" in said


def test_a_runs_folder_that_vanishes_is_said(terminal, monkeypatch):
    train_on = LanguageModel.training_step

    def vanishes(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            shutil.rmtree(terminal.folder / "runs")
        return train_on(self, batch, batch_idx)

    monkeypatch.setattr(LanguageModel, "training_step", vanishes)
    said = terminal.fails("run.name=gone", *OPTIONS)
    assert "is gone" in said and "starts over" in said
    assert not (terminal.folder / "runs").exists()


@pytest.mark.slow
def test_of_several_processes_that_need_one_store_one_builds_it(tmp_path):
    """They find it built, or wait for who builds it."""
    write_text(tmp_path / "text.txt", 20_000)
    text = ("data=files", "data.train=text.txt", "data.validation_fraction=0.2", "data.block_size=32")
    command = ("lmft.prepare", "model=distilbert_tiny", "model.tokenizer.vocab_size=120", *text)
    processes = [start(tmp_path, *command) for _ in range(3)]
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert sum("tokenising text.txt" in out + err for out, err in said) == 1
    assert sum("training a wordpiece vocabulary" in out + err for out, err in said) == 1
