"""lmft.export: whose weights it writes and in which format, what it refuses, how it completes and pushes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from lmft.assembly import exporting
from lmft.errors import UserError
from lmft.runs.checkpoint_io import read
from lmft.runs.folder import RunFolder
from tests.helpers.fake_hub import TOKEN, fake_hub
from tests.helpers.processes import Terminal
from tests.helpers.runs import CHECKOUT, tiny_arguments, train

CPU = ("trainer=cpu", "trainer.precision=32-true")
KEPT = ("checkpoint.every_n_steps=6", "checkpoint.keep_last=-1", "optimizer.lr=1e-2")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of 18 steps, with checkpoints at 6, 9, 12 and 18."""
    folder = tmp_path_factory.mktemp("export")
    run, _ = train(folder, "run.name=x", *KEPT)
    return run.paths


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made.path, tmp_path / "runs" / "x")
    return RunFolder(tmp_path / "runs" / "x")


@pytest.fixture
def terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return Terminal(tmp_path, capsys)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def saved(run, step):
    state = read(run.checkpoints / f"step={step}.ckpt")["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def assert_equal(found, expected):
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def metrics(run):
    return json.loads(run.metrics.read_text())


def test_the_weights_of_a_checkpoint_replace_the_runs_model_and_its_scores(run, terminal):
    out = terminal.succeeds("export", "run=runs/x", "checkpoint=6", *CPU)
    assert_equal(weights(run.model), saved(run, 6))
    exported = metrics(run)["exported"]
    assert (exported["step"], exported["checkpoint"]) == (6, "6") and "step 6" in out
    terminal.succeeds("evaluate", "run=runs/x", *CPU, "output=scores.json")
    loss = json.loads(Path("scores.json").read_text())["validation"]["loss"]
    assert loss == pytest.approx(exported["loss"], rel=1e-5)
    card = ModelCard.load(run.model / "README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(exported["perplexity"], rel=1e-5)
    assert "the weights of step 6" in card.text and "step 6" in run.report.read_text()


def test_another_folder_leaves_the_run_as_it_was(run, terminal):
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file() and path.name[0] != "."}
    terminal.succeeds("export", "run=runs/x", "checkpoint=last", "dtype=fp16", "output=short", *CPU)
    assert {path: path.read_bytes() for path in before} == before
    assert {value.dtype for value in weights(Path("short")).values()} == {torch.float16}
    assert "in float16" in (Path("short") / "README.md").read_text()
    assert not list(Path().glob(".short*"))


def test_the_mean_of_the_newest_checkpoints(run, terminal):
    terminal.succeeds("export", "run=runs/x", "checkpoint=average:3", "output=mean", *CPU)
    states = [saved(run, step) for step in (9, 12, 18)]
    for name, value in weights(Path("mean")).items():
        mean = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(value.double(), mean, rtol=1e-6, atol=1e-8)
    assert "mean of the weights of 3 checkpoints" in (Path("mean") / "README.md").read_text()


def test_a_mean_is_measured_and_asked_as_well(run, terminal):
    average = ("run=runs/x", "checkpoint=average:2")
    assert "loss (nats)" in terminal.succeeds("evaluate", *average, *CPU)
    assert "brown" in terminal.succeeds("predict", *average, "prompt=the [MASK] brown fox")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "no run is named"),
        (("run=runs/y",), "no run in runs/y"),
        (("run=runs/x", "checkpoint=7"), "one of: best, last, 6, 9, 12, 18"),
        (("run=runs/x", "checkpoint=average:9"), "has kept 4 checkpoints, fewer than 9"),
        (("run=runs/x", "checkpoint=average:9"), "checkpoint.keep_last=9"),
        (("run=runs/x", "checkpoint=average:two"), "names no number"),
        (("run=runs/x", "dtype=bf61"), "did you mean 'bf16'"),
        (("run=runs/x", "format=ggfu"), "did you mean 'gguf'"),
        (("run=runs/x", "format=gguf"), "git clone"),
        (("run=runs/x", "format=onnx"), "pip install"),
        (("run=runs/x", "output=nowhere/x"), "no such folder"),
        (("run=runs/x", "output=runs"), "an export would replace it"),
        (("run=runs/x", "push_to_hub=me/x"), "there is no token"),
        (("run=runs/x", "push_to_hub=x"), "names no user"),
        (("run=runs/x", "push_to_hub=a/b/c"), "not the name of a repository"),
        (("run=runs/x", "model.name_or_path=y"), "two models"),
        (("run=runs/x", "optimizer.lr=3"), "does not read optimizer.lr"),
        (("run=runs/x", "callbacks=ema"), "does not read callbacks"),
        (("run=runs/x", "model.export=last"), "checkpoint=last"),
        (("run=runs/x", "private=false"), "add push_to_hub=USER/NAME"),
    ],
)
def test_what_cannot_be_is_refused_in_three_lines(run, terminal, monkeypatch, options, said):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "t" if said[:5] in ("names", "no re") else None)
    monkeypatch.setenv("PATH", "")
    assert said in terminal.refuses("export", *options)


def test_a_dry_run_lists_files_and_writes_none(run, terminal):
    before = sorted(Path().rglob("*"))
    out = terminal.succeeds("export", "run=runs/x", "checkpoint=6", "dtype=bf16", "dry_run=true", *CPU)
    assert sorted(path for path in Path().rglob("*") if path.name != ".lock") == [
        path for path in before if path.name != ".lock"
    ]
    size = (run.model / "config.json").stat().st_size
    assert "model.safetensors" in out and f"{size + 1:,}" in out  # bfloat16 has a letter more than float32


def test_text_that_is_gone_is_no_obstacle_without_measuring(run, terminal):
    gone = "data.train=gone.txt"
    assert "validate=false" in terminal.refuses("export", "run=runs/x", "checkpoint=6", gone, *CPU)
    terminal.succeeds("export", "run=runs/x", "checkpoint=6", gone, "validate=false", *CPU)
    assert metrics(run)["exported"]["loss"] is None
    assert "were not measured" in (run.model / "README.md").read_text()


def test_a_changed_licence_is_written(run, terminal):
    terminal.succeeds("export", "run=runs/x", "model.license=apache-2.0", "validate=false", *CPU)
    assert ModelCard.load(run.model / "README.md").data.license == "apache-2.0"


class Full(Exception):
    """Something that nobody thought of."""


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ((), None),
        (("checkpoint.keep_last=0",), None),
        (("model.export=last", "checkpoint.keep_last=0"), "exported.ckpt"),
        (("model.lora.r=2", "model.export=last", "checkpoint.keep_last=0", "model.export_dtype=bf16"), "exported.ckpt"),
    ],
)
def test_a_failed_export_is_completed(tmp_path, terminal, monkeypatch, options, kept):
    common = ("run.name=x", "trainer.max_epochs=1", "data.probes=['the [MASK] fox']", *options)
    _, whole = train(tmp_path, *common, "run.name=whole")

    def fail(*_):
        raise Full("the moon is in the way")

    with monkeypatch.context() as patched:
        patched.setattr(exporting, "write_model_card", fail)
        with pytest.raises(Full):
            train(tmp_path, *common)
    run = RunFolder(tmp_path / "runs" / "x")
    log = run.log.read_text()
    assert "could not be exported: the moon is in the way" in log and f"python -m lmft.export run={run.path}" in log
    assert not run.model.exists() and run.status() == "failed"
    assert [path.name for path in run.checkpoints.glob("exported.ckpt")] == ([kept] if kept else [])
    terminal.succeeds("export", "run=runs/x", *CPU)
    assert_equal(weights(run.model), weights(tmp_path / "runs" / "whole" / "model"))
    assert metrics(run)["exported"] == whole["exported"] and run.status() == "complete"
    assert not (run.checkpoints / "exported.ckpt").exists() and run.report.exists()
    assert "is complete" in terminal.succeeds("export", "run=runs/x")


def test_a_repeated_training_completes_a_failed_export_too(tmp_path, monkeypatch):
    common = ("run.name=x", "trainer.max_epochs=1")

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(exporting, "write_model_card", fail)
        with pytest.raises(UserError, match="no space left on device"):
            train(tmp_path, *common)
    run, result = train(tmp_path, *common)
    assert result["status"] == "complete" and run.paths.model.is_dir()
    assert not run.paths.has_pending_export()


def test_an_unfinished_run_is_exported_from_a_checkpoint_alone(run, terminal):
    shutil.rmtree(run.model)
    run.metrics.unlink()
    assert "add checkpoint=last" in terminal.refuses("export", "run=runs/x", "output=y")
    terminal.succeeds("export", "run=runs/x", "checkpoint=last", *CPU)
    assert_equal(weights(run.model), saved(run, 18))
    assert not run.metrics.exists()


def test_adapters_alone_are_exported_from_their_checkpoint_and_merged_on_request(tmp_path, terminal):
    base, _ = train(tmp_path, "run.name=base", "trainer.max_steps=2", "trainer.max_epochs=1")
    options = ["model=masked", f"model.name_or_path={base.paths.model}", "model.lora.r=2", "model.lora.merge=false"]
    text = [each for each in tiny_arguments(tmp_path) if not each.startswith(("model", "++model"))]
    given = (*text, *options, "run.name=adapters", "trainer.max_epochs=1")
    terminal.succeeds("train", *given)
    run = RunFolder(tmp_path / "runs" / "adapters")
    loss = metrics(run)["exported"]["loss"]
    terminal.succeeds("export", "run=runs/adapters", "dtype=bf16", "output=short", *CPU)
    adapters = load_file(Path("short") / "adapter_model.safetensors")
    assert {value.dtype for value in adapters.values()} == {torch.bfloat16}
    merge = ("model.lora.merge=true", "checkpoint=best", "output=merged")
    out = terminal.succeeds("export", "run=runs/adapters", *merge, *CPU)
    assert (Path("merged") / "config.json").is_file() and f"{loss:.4f}" in out


SCRIPTS = {
    "gguf": (
        "convert_hf_to_gguf.py",
        "import sys; open(sys.argv[3], 'w').write(' '.join(sys.argv[1:]))\n",
        "model.gguf",
    ),
    "onnx": ("optimum-cli", '#!/bin/sh\necho "$@" > "$5/model.onnx"\n', "model.onnx"),
}


@pytest.mark.parametrize("format", SCRIPTS)
def test_other_formats_are_converted_by_their_programs(run, terminal, monkeypatch, tmp_path, format):
    name, script, made = SCRIPTS[format]
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / name).write_text(script)
    (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    terminal.succeeds("export", "run=runs/x", f"format={format}")
    assert "runs/x/model" in (run.path / f"model-{format}" / made).read_text()
    (tools / name).write_text("#!/bin/sh\necho 'no such architecture' >&2; exit 1\n")
    if format == "onnx":
        assert "optimum-cli failed: no such architecture" in terminal.refuses(
            "export", "run=runs/x", f"format={format}"
        )
    assert (run.path / f"model-{format}" / made).is_file(), "the earlier one stays"


# the hub


def pushed(hub, folder, *options, token=TOKEN):
    """The command as a process of its own, since the hub's address is read when the library is imported."""
    environment = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token}
    environment |= {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "HF_HOME": str(folder / "hf")}
    command = [sys.executable, "-m", "lmft.export", "run=runs/x", "push_to_hub=me/mine", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def test_a_push_of_the_folder(run, tmp_path):
    with fake_hub() as hub:
        dry = pushed(hub, tmp_path, "dry_run=true")
        assert dry.returncode == 0 and "me/mine (private) would get" in dry.stdout and not hub.repositories
        hub.breaks_at = "/commit/"
        failed = pushed(hub, tmp_path)
        assert failed.returncode == 2 and "could not be pushed" in failed.stderr and "Traceback" not in failed.stderr
        assert len(failed.stderr[failed.stderr.index("error: ") :].strip().splitlines()) == 3
        hub.breaks_at = None
        done = pushed(hub, tmp_path)
        assert done.returncode == 0 and f"pushed to {hub.address}/me/mine" in done.stdout
        repository = hub.repositories["me/mine"]
        assert repository["private"] is True
        assert repository["files"] == {path.name: path.read_bytes() for path in run.model.iterdir()}


def test_a_repository_that_others_can_read_is_not_taken_for_a_private_one(run, tmp_path):
    with fake_hub() as hub:
        hub.repositories["me/mine"] = {"private": False, "files": {}}
        refused = pushed(hub, tmp_path)
        assert refused.returncode == 2 and "me/mine exists and is public" in refused.stderr
        assert not hub.repositories["me/mine"]["files"]
        refused = pushed(hub, tmp_path, "checkpoint=6", token="wrong")
        assert refused.returncode == 2 and "the hub refuses" in refused.stderr
        assert not any("create" in request for request in hub.requests)
        assert pushed(hub, tmp_path, "private=false").returncode == 0
        assert "config.json" in hub.repositories["me/mine"]["files"]
