"""What Hydra's documentation shows to type, with what it does here; the section Hydra of docs/hydra-and-lightning.md.

`python -m tests.helpers.gestures` writes the section anew.
"""

import contextlib
import io
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lmft import train
from tests.helpers.runs import CHECKOUT

PAGE = CHECKOUT / "docs" / "hydra-and-lightning.md"
BEGIN = "<!-- Hydra: written by python -m tests.helpers.gestures -->"
END = "<!-- end of Hydra -->"
FOLDERS = {
    "conf/mine.yaml": "defaults: [train, _self_]\noptimizer: {lr: 7.0e-4}\n",
    "conf/model/small.yaml": "defaults: [distilbert_tiny, _self_]\nconfig: {dim: 32}\n",
    "conf/model/smaller.yaml": "defaults: [distilbert_tiny, _self_]\nconfig: {dim: 16}\n",
    "conf/experiment/grid.yaml": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n",
    "conf/experiment/elsewhere.yaml": "# @package _global_\nhydra: {run: {dir: outputs}}\n",
    "conf/experiment/typo.yaml": "# @package _global_\nrun: {nmae: x}\n",
    "own/train.yaml": "defaults: [/mine_base, _self_]\nseed: 8\n",
    "a.txt": "a text\n",
}
ENVIRONMENT = {"MY_LR": "0.002", "MY_TEXT": "a.txt"}


@dataclass(frozen=True)
class Gesture:
    """Something to type after `python -m lmft.train`."""

    typed: str
    """As a shell reads it."""
    does: str = ""
    """What it does, in a few words; empty if it is refused."""
    jobs: tuple[dict[str, Any], ...] = ()
    """For each job: option -> value."""
    prints: str = ""
    """What is on stdout, of something that runs nothing."""
    refused: str = ""
    """What the error says."""


@dataclass
class Outcome:
    """What became of a gesture."""

    code: int
    out: str
    error: str
    configs: list[dict[str, Any]] = field(default_factory=list)

    def values(self, options: dict[str, Any]) -> list[dict[str, Any]]:
        """The values of these options in each job."""
        return [{key: _value(config, key) for key in options} for config in self.configs]


def _value(config: Any, key: str) -> Any:
    for name in key.split("."):
        if name not in config:
            return "(absent)"
        config = config[name]
    return config


def fit(configs: list[dict[str, Any]]) -> Any:
    """Stands for a training: leaves a run that is complete, and its config in `configs`."""

    def fake(config: dict[str, Any], run: Any) -> dict[str, Any]:
        configs.append({**config, "hydra_env": dict(os.environ)})
        with run:
            run.begin()
            run.write_metrics({"status": "complete", "after": {"loss": 1.0}, "train": {"seconds": 1.0}})
        return {}

    return fake


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder with YAMLs, a text and a finished run, in which the gestures are typed."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        for file, text in FOLDERS.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        for variable, value in ENVIRONMENT.items():
            patch.setenv(variable, value)
        patch.chdir(folder)
        typed("run.name=first seed=5 optimizer.lr=3e-4 model=gpt2_tiny")
        yield folder


def typed(words: str) -> Outcome:
    """Type a gesture in the present folder."""
    outcome = Outcome(0, "", "")
    out = io.StringIO()
    err = io.StringIO()
    root = logging.getLogger()
    handlers = root.handlers[:]
    level = root.level
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("lmft.commands.train.fit", fit(outcome.configs))
        patch.setattr(sys, "argv", ["train.py"])
        try:
            train.main(shlex.split(words))
        except SystemExit as ended:
            outcome.code = int(ended.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
    outcome.out = out.getvalue()
    outcome.error = err.getvalue()
    return outcome
