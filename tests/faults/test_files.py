"""Rows 3, 37 and 39: a checkpoint cut off as its process dies, and files that bring code of their own."""

import io
import json
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

from tests.helpers.causal import saved, text_arguments
from tests.helpers.processes import in_another_process
from tests.helpers.resuming import assert_same
from tests.helpers.runs import numbers, train

pytestmark = pytest.mark.timeout(120)

OPTIONS = ("checkpoint.every_n_steps=1", "data.probes=['the [MASK] fox']")


def train_until_a_save(folder: Path, victim: int, *overrides: str) -> None:
    """A training that is killed when half of its checkpoint of this number, counted from 0, is on the disk."""
    saved, save = [], torch.save

    def dies(content, file, *further):
        whole = io.BytesIO()
        save(content, whole, *further)
        half = len(whole.getvalue()) // (2 if len(saved) == victim else 1)
        file.write(whole.getvalue()[:half])
        if len(saved) == victim:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(file)

    torch.save = dies
    train(folder, *overrides)


def test_fault_03_the_folder_for_temporary_files_has_no_part_in_saving(folder, tmp_path, monkeypatch):
    """It may lie on another file system: what is moved from there is copied, and a copy can be cut off."""
    run, result = train(folder, "run.name=alone", *OPTIONS)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    in_another_process(train_until_a_save, folder, 4, "run.name=cut-off", *OPTIONS)
    assert not [path for path in tmp_path.rglob("*") if "ckpt" in path.name or path.stat().st_size > 10_000]
    resumed, again = train(folder, "run.name=cut-off", *OPTIONS)
    assert_same(resumed, run)
    assert numbers(again) == numbers(result)
    names = {path.name for path in resumed.paths.checkpoints.iterdir()}
    assert {name.removesuffix(".xxh3") for name in names} == {"step=17.ckpt", "step=18.ckpt", "last.ckpt", "best.ckpt"}


class Payload:
    """What makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("the-payload-was-run",)


def test_fault_37_a_checkpoint_that_would_run_code_is_not_read(terminal):
    torch.save({"state_dict": {}, "payload": Payload()}, "evil.ckpt")
    Path("plain.ckpt").write_bytes(pickle.dumps(Payload()))
    for name in ("evil", "plain"):
        assert f"{name}.ckpt" in terminal.refuses_to_train(f"resume={name}.ckpt", "run.name=x")
        assert not Path("the-payload-was-run").exists()


def test_fault_39_a_models_own_code_is_run_only_at_a_pinned_commit(terminal):
    model = saved(terminal.folder, "llama")
    (model / "evil.py").write_text("import os\nos.mkdir('the-payload-was-run')\n")
    config = json.loads((model / "config.json").read_text())
    named = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (model / "config.json").write_text(json.dumps({**config, **named}))
    command = ("train", "model=causal", f"model.name_or_path={model}", *text_arguments(terminal.folder))
    assert "model.trust_remote_code=true" in terminal.refuses(*command)
    for revision in ("null", "main", "a" * 7):
        said = terminal.refuses(*command, "model.trust_remote_code=true", f"model.revision={revision}")
        assert "does not pin" in said and "model.revision=COMMIT" in said
    assert not Path("the-payload-was-run").exists()
