"""Each file that a training leaves is searched for secrets."""

import logging

import pytest

from lmft.commands.train import fit
from lmft.runs.run import Run
from tests.helpers.runs import tiny, tiny_arguments

SENTINEL = "Sentinel7Q2"


@pytest.fixture
def told(tmp_path, monkeypatch):
    """A run that knows secrets from everywhere, and its config."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"{SENTINEL}-{name}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{SENTINEL}-env@host")
    log = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path / "runs" / "told")}
    config = tiny(tmp_path, "run.name=told", "trainer.max_steps=2")
    config["logger"] = {"csv": log}
    config["mine"] = {
        **{f"hub_{name}": f"{SENTINEL}-{name}" for name in ("token", "password", "key", "secret")},
        "uri": f"https://me:{SENTINEL}-config@host/path?token={SENTINEL}-query",
        "note": f"the password is {SENTINEL}-password",
        "keys": [f"{SENTINEL}-list", {"inner": f"{SENTINEL}-inner"}],
    }
    added = [f"+logger.x.api_key={SENTINEL}-argument", f"+data.url=https://me:{SENTINEL}-url@host"]
    return config, Run(config, arguments=[*tiny_arguments(tmp_path), *added])


def leaks(run):
    paths = [path for path in run.folder.rglob("*") if path.is_file()]
    return [str(path) for path in paths if SENTINEL.encode() in path.read_bytes() or SENTINEL in path.name]


def test_no_file_of_a_run_holds_a_secret(told, tmp_path):
    config, run = told
    fit(config, run)
    names = {path.name for path in run.folder.rglob("*")}
    assert {"config.yaml", "command.txt", "train.log", "metrics.json", "report.html", "last.ckpt", "README.md"} <= names
    assert "<redacted>" in run.paths.config.read_text() and "api_key=<redacted>" in run.paths.command.read_text()
    assert leaks(run) == []


def test_the_log_of_a_failed_run_holds_no_secret(told):
    _, run = told
    with pytest.raises(ConnectionError), run:
        run.paths.checkpoints.mkdir()
        logging.getLogger("some.library").error("login with %s-HF_TOKEN", SENTINEL)
        logging.getLogger("some.library").error("login with %r", {"Authorization": f"Bearer {SENTINEL}-token"})
        raise ConnectionError(f"401 for https://me:{SENTINEL}-other@host, {SENTINEL}-inner")
    log = run.paths.log.read_text()
    assert "login with <redacted>\n" in log and "'Bearer <redacted>'" in log
    assert "\nConnectionError: 401 for https://me:<redacted>@host, <redacted>\n" in log
    assert leaks(run) == []
