"""Commands as processes of their own, which are killed at a chosen place."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

import lmft
from lmft.modules.base import LanguageModel
from lmft.runs.run import Run
from tests.helpers.causal import logging_left_alone
from tests.helpers.runs import tiny, tiny_arguments, train

T = TypeVar("T")


_SOURCE = str(Path(lmft.__file__).parent) + os.sep


class Terminal:
    """An empty folder where commands are typed: `runs` and `cache` come to lie in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]):
        self.folder, self.capsys = folder, capsys

    def run(self, command: str, *argv: str) -> tuple[int, str, str]:
        """A command's exit code, and what it wrote on stdout and stderr."""
        self.capsys.readouterr()
        code = 0
        with logging_left_alone():
            try:
                import_module(f"lmft.{command}").main(argv)
            except SystemExit as ended:
                code = int(ended.code or 0)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def succeeds(self, command: str, *argv: str) -> str:
        """What a command wrote on stdout that ended well."""
        code, out, err = self.run(command, *argv)
        assert code == 0, err
        return out

    def refuses(self, command: str, *argv: str) -> str:
        """The lines, three at most, in which a command says the user's mistake; it leaves every run as it was."""
        before = self._runs()
        code, _, err = self.run(command, *argv)
        assert code == 2 and "Traceback" not in err, err
        said = err[err.rindex("error: ") :]
        assert len(said.splitlines()) <= 3, said
        assert self._runs() == before
        return said

    def _runs(self) -> dict[str, bytes]:
        """All files of all runs."""
        return contents(self.folder / "runs")

    def trains(self, *overrides: str, model: str = "distilbert_tiny") -> str:
        """`succeeds` of a tiny training."""
        return self.succeeds("train", *tiny_arguments(self.folder, model), *overrides)

    def fails(self, *overrides: str) -> str:
        """The lines, three at most, in which a tiny training says why it ends early. Its run stays."""
        code, _, err = self.run("train", *tiny_arguments(self.folder), *overrides)
        said = err[err.rindex("error: ") :]
        assert code == 2 and "Traceback" not in err and len(said.splitlines()) <= 3, err
        return said

    def refuses_to_train(self, *overrides: str, model: str = "distilbert_tiny") -> str:
        """`refuses` of a tiny training."""
        return self.refuses("train", *tiny_arguments(self.folder, model), *overrides)

    def ended(self, name: str) -> Run:
        """A run of a tiny training."""
        return Run(tiny(self.folder, f"run.name={name}"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for a lock and the name of its owner."""
    kept = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", ".owner"))
    return {str(path): path.read_bytes() for path in kept}


def fate_of(task: Callable[..., object], *arguments: object) -> int:
    """Does `task` in a process of its own. Returns 0 if that ended well, minus the signal if one killed it."""
    pid = os.fork()
    if not pid:
        code = 1
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads have stayed in the other process
        try:
            task(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    try:
        _, status = os.waitpid(pid, 0)
    except BaseException:  # the test's time is up
        os.kill(pid, signal.SIGKILL)
        raise
    return os.waitstatus_to_exitcode(status)


def in_another_process(task: Callable[..., object], *arguments: object) -> None:
    """Does `task` in a process of its own, in which it must come to be killed."""
    assert fate_of(task, *arguments) == -signal.SIGKILL, "it ended before its time"


def watching(moment: Callable[[str], None], task: Callable[..., T], *arguments: object) -> T:
    """Does `task`, and tells `moment` wherever lmft's code calls something or is called: in which function that is.

    Between two micro-batches each place in the code counts once, so that a loop over a vocabulary is no more likely
    to be hit than a file's move to its place.
    """
    process, seen = os.getpid(), set()

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event not in ("call", "c_call") or not code.co_filename.startswith(_SOURCE) or os.getpid() != process:
            return
        if event == "call" and code is LanguageModel.training_step.__code__:
            seen.clear()
        place = code, frame.f_lasti
        if place not in seen:
            seen.add(place)
            moment(code.co_qualname)

    sys.setprofile(profile)
    try:
        return task(*arguments)
    finally:
        sys.setprofile(None)


def kill_at(moment: int, task: Callable[..., object], *arguments: object) -> bool:
    """Whether `task`, done in a process of its own that is killed at this of its moments, did not get to its end."""
    left = moment

    def dies(_: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    fate = fate_of(watching, dies, task, *arguments)
    assert fate in (0, -signal.SIGKILL)
    return fate != 0


def kill_in_training(folder: Path, victim: int, *overrides: str) -> None:
    """A training is killed as it begins the micro-batch of this number, counted from 0 since step 0."""
    in_another_process(_train_until, folder, victim, *overrides)


def _train_until(folder: Path, victim: int, *overrides: str) -> None:
    train_on = LanguageModel.training_step

    def dies(self: LanguageModel, batch: dict, batch_idx: int) -> object:
        if self.trainer.fit_loop.epoch_loop.batch_progress.total.ready - 1 == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return train_on(self, batch, batch_idx)

    pytest.MonkeyPatch().setattr(LanguageModel, "training_step", dies)
    train(folder, *overrides)
