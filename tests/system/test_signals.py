import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lmft.system import signals
from lmft.system.signals import Stopped, handling_signals
from tests.helpers.runs import tiny_arguments

pytestmark = pytest.mark.timeout(60)


def send(signum):
    os.kill(os.getpid(), signum)


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_ends_what_is_going_on_and_no_other_does_anything(signum, exit_code):
    with handling_signals():
        with pytest.raises(Stopped) as stopped:
            send(signum)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stopped.value.exit_code == exit_code and signals.recorded_signal() == signum
    assert signals.recorded_signal() is None


def test_a_signal_can_be_made_to_wait():
    with handling_signals():
        signals.defer_signals()
        assert signals.recorded_signal() is None
        send(signal.SIGINT)
        send(signal.SIGTERM)
        signals.raise_signals()
        assert signals.recorded_signal() == signal.SIGINT


def test_a_pipe_that_is_not_the_output_stops_nothing():
    reader, writer = os.pipe()
    os.close(reader)
    with handling_signals():
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
        assert signals.recorded_signal() is None
    os.close(writer)


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(signum) for signum in signals.SIGNALS]
    with handling_signals():
        ours = [signal.getsignal(signum) for signum in signals.SIGNALS]
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signals.install_handlers()
        assert [signal.getsignal(signum) for signum in signals.SIGNALS] == ours != before
    signals.install_handlers()
    assert [signal.getsignal(signum) for signum in signals.SIGNALS] == before


def test_a_thread_that_gets_no_signals_changes_nothing():
    found = []

    def run():
        with handling_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def ended_by(begin, signals):
    """How a forked process ends that gets these signals: an exit code, or minus the signal it died of."""
    pid = os.fork()
    if not pid:
        begin()
        for signum in signals:
            send(signum)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_processes_leave_ctrl_c_to_their_parent():
    with handling_signals():
        assert ended_by(lambda: None, [signal.SIGINT] * 2) == 7
        assert ended_by(lambda: None, [signal.SIGTERM]) == -signal.SIGTERM
        assert signals.recorded_signal() is None


def test_loader_processes_outlive_one_sigterm_so_that_their_parent_can_end_its_step():
    assert ended_by(signals.let_parent_handle_signals, [signal.SIGINT, signal.SIGTERM, signal.SIGINT]) == 7
    assert ended_by(signals.let_parent_handle_signals, [signal.SIGTERM] * 2) == -signal.SIGTERM


def test_the_message_names_the_checkpoint_and_the_command_that_continues():
    assert str(Stopped(signal.SIGINT)) == "stopped by SIGINT"
    said = str(Stopped(signal.SIGTERM, Path("runs/x/checkpoints/step=7.ckpt"), "python -m lmft.train run.name=x"))
    assert said.splitlines() == [
        "stopped by SIGTERM, saved in runs/x/checkpoints/step=7.ckpt",
        "  continue: python -m lmft.train run.name=x",
    ]


def end(folder, signum, when, *overrides):
    """Exit code and stderr of a training that gets a signal as soon as `when` is true."""
    command = [sys.executable, "-m", "lmft.train", *tiny_arguments(folder), "run.name=x", *overrides]
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None and not when():
            time.sleep(0.02)
        process.send_signal(signum)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, said


@pytest.mark.slow
def test_fault_10_sigterm_amid_a_training(tmp_path):
    run = tmp_path / "runs" / "x"
    options = ("trainer.max_epochs=10000", "trainer.val_check_interval=3", "checkpoint.every_n_steps=100000")
    code, said = end(tmp_path, signal.SIGTERM, (run / "checkpoints" / "last.ckpt").exists, *options)
    metrics = json.loads((run / "metrics.json").read_text())
    *loading, first, second = said.splitlines()
    assert all(line.startswith("loading PyTorch") for line in loading)
    assert code == 143 and metrics["status"] == "stopped"
    assert first.startswith("stopped by SIGTERM, saved in ") and Path(first.rpartition(" ")[2]).exists()
    assert second == f"  continue: {metrics['command']}" and second.endswith("run.name=x")


@pytest.mark.slow
def test_fault_10_ctrl_c_while_the_text_is_tokenised(tmp_path):
    words = "the quick brown fox jumps over a lazy dog and then some more of them\n"
    (tmp_path / "text.txt").write_text(words * 200_000)
    stores = tmp_path / "cache" / "stores"
    code, said = end(tmp_path, signal.SIGINT, lambda: stores.exists() and list(stores.iterdir()))
    assert code == 130 and said.splitlines()[-1] == "stopped by SIGINT" and "Traceback" not in said
    assert not (tmp_path / "runs").exists()
