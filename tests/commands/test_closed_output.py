"""Commands whose output nobody reads any more, as with `| head`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmft.runs.folder import RunFolder
from lmft.system.files import read_json
from tests.helpers.forked import Forked
from tests.helpers.runs import CHECKOUT, tiny_arguments

pytestmark = pytest.mark.timeout(120)


def ended(folder: Path, command: str, stderr_is_closed: bool = False) -> tuple[int, str]:
    """Exit code and stderr of a command whose output is a pipe that is closed from the beginning."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, *command.split()],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])},
            stdout=writer,
            stderr=writer if stderr_is_closed else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writer)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize(
    "command",
    [
        "-m lmft.train --help",
        "-m lmft evaluate --cfg job",
        "-m lmft --version",
        pytest.param("-u -m lmft.train --help", marks=pytest.mark.slow),
        pytest.param("-m lmft.train --cfg job", marks=pytest.mark.slow),
        pytest.param("-m lmft --help", marks=pytest.mark.slow),
    ],
)
def test_a_command_that_only_shows_something_ends_silently_with_141(command, tmp_path):
    assert ended(tmp_path, command) == (141, "")


def test_a_closed_stderr_ends_with_the_same_exit_code(tmp_path):
    assert ended(tmp_path, "-m lmft.train --help", stderr_is_closed=True)[0] == 141


def test_a_mistake_is_said_on_stderr_where_stdout_is_closed(tmp_path):
    code, said = ended(tmp_path, "-m lmft.train sed=1")
    assert code == 2 and said.startswith("error: unknown option 'sed'")


@pytest.mark.slow
def test_a_training_whose_output_is_closed_ends_as_an_interrupted_one(tmp_path):
    options = ("run.name=x", "validate_before=false", "trainer.max_epochs=-1", "trainer.max_steps=1000")
    process = Forked(tmp_path, "train", [*tiny_arguments(tmp_path), *options])
    line = ""
    while not line.startswith("step "):
        line = process.stdout.readline()
        assert line, process.stderr.read()
    process.stdout.close()
    said = process.stderr.read()
    code = process.wait()
    run = RunFolder(tmp_path / "runs" / "x")
    metrics = read_json(run.metrics)
    *loading, first, goes_on = said.splitlines()
    assert all(line.startswith("loading PyTorch") for line in loading)
    assert code == 141 and metrics["status"] == "stopped"
    assert first.startswith("stopped by SIGPIPE, saved in ") and Path(first.rpartition(" ")[2]).is_file()
    assert goes_on == f"  continue: {metrics['command']}"
    log = run.log.read_text()
    assert first in log and goes_on in log and "Traceback" not in log
    lines = [line for line in log.splitlines() if " INFO lmft.reporting.progress: step " in line]
    assert len(lines) == 2, "the second could not be shown any more"
