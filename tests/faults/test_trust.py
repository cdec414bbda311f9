"""Rows 38 and 41: configs that would run something, and secrets in them."""

import os
import pickle
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import contents

pytestmark = pytest.mark.timeout(120)

MARK = "the-payload-was-run"


class Payload:
    """What makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (MARK,)


CALLS = {
    "builtins.open": f"file: {MARK}, mode: w",
    "os.mkdir": f"path: {MARK}",
    "torch.load": "f: evil.pt, weights_only: false",
    "torch.optim.sgd.torch.load": "f: evil.pt, weights_only: false",
    "joblib.load": "filename: evil.pt",
    "lmft.objectives.mlm.np.load": "file: evil.pt, allow_pickle: true",
    "hydra.utils.get_object": f"path: {MARK}",
}
LEADS_ASTRAY = "torch.optim.sgd.torch.load"  # begins as what is trusted does
PLACES = (
    *("objective", "optimizer", "callbacks.x", "logger.x", "trainer", "trainer.strategy", "trainer.profiler.x.0"),
    *("hydra.callbacks.x", "hydra.job_logging.handlers.x", "hydra.launcher", "hydra.sweeper"),
)
CASES = [*((where, LEADS_ASTRAY) for where in PLACES), *(("callbacks.x", target) for target in CALLS)]


def nested(where, node):
    for key in reversed(where.split(".")):
        node = f"[{node}]" if key.isdigit() else f"{{{key}: {node}}}"
    return node


@pytest.fixture
def evil(terminal):
    """A file `evil.pt` with a payload."""
    Path("evil.pt").write_bytes(pickle.dumps(Payload()))


@pytest.mark.parametrize(("where", "target"), CASES)
def test_fault_38_nothing_is_called_because_a_yaml_file_names_it(where, target, terminal, evil):
    takes_more = where not in ("hydra.launcher", "hydra.sweeper")  # Hydra knows what else can stand there
    node = nested(where, f"{{_target_: {target}, {CALLS[target] if takes_more else ''}}}")
    Path("given/experiment").mkdir(parents=True)
    Path("given/experiment/evil.yaml").write_text(f"# @package _global_\n{node[1:-1]}\n")
    said = terminal.refuses_to_train("--config-dir=given", "experiment=evil")
    assert f"{target} is not trusted" in said and where in said
    assert not Path(MARK).exists()


@pytest.mark.parametrize(("where", "target"), [*((where, LEADS_ASTRAY) for where in PLACES[:4]), *CASES[-len(CALLS) :]])
def test_fault_38_nothing_is_called_because_the_command_line_names_it(where, target, terminal, evil):
    """There the user has the last word, but has to say it as such."""
    call = [f"++{where}.{each.replace(': ', '=')}" for each in CALLS[target].split(", ")]
    said = terminal.refuses_to_train(f"++{where}._target_={target}", *call)
    assert f"{target} is not trusted" in said and f"trust.targets=[{target}]" in said
    assert not Path(MARK).exists()


def test_fault_38_a_yaml_file_cannot_trust_itself(terminal):
    Path("given/experiment").mkdir(parents=True)
    text = f"trust: {{targets: [os.mkdir]}}\ncallbacks: {{x: {{_target_: os.mkdir, path: {MARK}}}}}"
    Path("given/experiment/evil.yaml").write_text(f"# @package _global_\n{text}\n")
    command = ("--config-dir=given", "experiment=evil")
    assert "trust.targets counts only on the command line" in terminal.refuses_to_train(*command)
    assert not Path(MARK).exists()


SENTINEL = "Sentinel7Q2"
TELLING = """
import logging
from lightning import Callback

class Telling(Callback):
    def __init__(self, api_key, dies=False, note=None):
        self.api_key, self.dies = api_key, dies

    def on_train_start(self, trainer, pl_module):
        logging.getLogger("some.library").error("logged in with %s", self.api_key)
        logging.getLogger("some.library").error("and at https://me:Sentinel7Q2-url@host")

    def on_train_epoch_end(self, trainer, pl_module):
        if self.dies:
            raise ConnectionError(f"401 for {self.api_key}")
"""


@pytest.mark.parametrize("dies", [False, True])
def test_fault_41_no_file_of_a_run_holds_a_secret(dies, terminal, monkeypatch):
    Path("telling.py").write_text(TELLING)
    monkeypatch.syspath_prepend(terminal.folder)
    monkeypatch.setenv("HF_TOKEN", f"{SENTINEL}-environment")
    arguments = (
        *("run.name=told", "trainer.max_steps=12", "checkpoint.every_n_steps=2", "trust.targets=[telling.Telling]"),
        *("+callbacks.x._target_=telling.Telling", f"+callbacks.x.dies={dies}"),
        f"+callbacks.x.api_key={SENTINEL}-argument",
        f"+callbacks.x.note={SENTINEL}-environment",  # in a place where no secret is looked for
    )
    try:
        if dies:
            with pytest.raises(ConnectionError):
                terminal.trains(*arguments)
        else:
            terminal.trains(*arguments)
    finally:
        sys.modules.pop("telling", None)
    files = contents(terminal.folder / "runs" / "told")
    names = {Path(path).name for path in files}
    assert {"config.yaml", "command.txt", "train.log", "metrics.json", "last.ckpt", "best.ckpt"} <= names
    assert dies or {"README.md", "report.html", "model.safetensors"} <= names
    told = [path for path, content in files.items() if SENTINEL.encode() in content]
    assert not told
    log = (terminal.folder / "runs/told/train.log").read_text()
    assert "logged in with <redacted>" in log and (not dies or "ConnectionError: 401 for <redacted>" in log)
