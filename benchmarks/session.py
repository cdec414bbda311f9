"""One call of the benchmarks: its options, its sides run in turns, and where its figures go."""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.figures import ResultsFile, Rounds
from benchmarks.process import Failed, call_elsewhere, call_here

Side = Callable[[], dict[str, float]]


@dataclass
class Session:
    """The options and results that all suites share.

    Args:
        rounds: how often each side runs.
        steps: optimizer steps of a training.
        folder: an empty folder for texts, caches and runs.
        file: where figures are written.
        is_tiny: sizes that show that all works; their figures mean nothing.
        in_process: sides run in this process, whose peak memory is then not that of a side; but on a GPU
            it is.
        seconds: sides that have not begun by then are left out.
        given: the options text, tokenizer and model.
        only: a part of the names of the trainings that are measured.
        gigabytes: the size of the text of `corpus`.
    """

    rounds: int
    steps: int
    folder: Path
    file: ResultsFile
    is_tiny: bool = False
    in_process: bool = False
    seconds: float = float("inf")
    given: dict[str, str | None] = field(default_factory=dict)
    only: str = ""
    gigabytes: float = 1.0
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def has_gpu(self) -> bool:
        """Return whether sides run on a GPU."""
        return bool(self.file.facts["gpu"])

    @property
    def trainings(self) -> list[workloads.Workload]:
        """Return the trainings that are measured on this machine."""
        of_machine = workloads.GPU if self.has_gpu else workloads.CPU
        chosen = workloads.TINY if self.is_tiny else of_machine
        return [workload for workload in chosen if self.only in workload.name]

    def side(self, function: str, /, **given: Any) -> Side:
        """Return a side that calls `module:function` of this package."""
        call = call_here if self.is_tiny or self.in_process else call_elsewhere
        return lambda: call(function, given)

    def in_turns(self, sides: dict[str, Side]) -> Rounds:
        """Run each side once a round, so that a machine's drift hits all of them, and print each result.

        A side that fails is told and left out from then on.
        """
        rounds: Rounds = {name: [] for name in sides}
        left = dict(sides)
        for number in range(self.rounds):
            for name, side in list(left.items()):
                if time.monotonic() - self.started > self.seconds:
                    self._problem(f"{name}: no time left in round {number + 1}")
                    continue
                try:
                    rounds[name].append(side())
                except (Exception, SystemExit) as error:
                    del left[name]
                    self._problem(f"{name}: {type(error).__name__}: {_last_line(error)}")
                    continue
                self._print(f"round {number + 1}", f"{name:32} {_shown(rounds[name][-1])}")
        return rounds

    def row(self, section: str, figure: str, command: str, results: Iterable[dict[str, Any]]) -> None:
        """Print the results of a figure and write them to the file."""
        found = list(results)
        if not found:
            return
        for result in found:
            self._print(section, f"{figure}: {json.dumps(result, ensure_ascii=False)}")
        self.file.add({"section": section, "figure": figure, "command": command, "results": found})

    def _problem(self, text: str) -> None:
        self.problems.append(text)
        self._print("problem", text)

    def _print(self, what: str, text: str) -> None:
        print(
            f"[{time.monotonic() - self.started:5.0f} s] {what:12} {text}", file=sys.stderr, flush=True
        )


def _shown(figures: dict[str, float]) -> str:
    return "  ".join(f"{name} {number:.4g}" for name, number in figures.items())


def _last_line(error: BaseException) -> str:
    """Return the end of a process's complaint, or the first line of an exception's."""
    lines = str(error).strip().splitlines() or [""]
    return lines[-1] if isinstance(error, Failed) else lines[0]
