import errno
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
import yaml

from lmft.errors import UserError
from lmft.runs.checkpoints import checksum, checksum_file
from lmft.runs.redaction import REDACTED, Redactor, is_secret_name
from lmft.runs.resume import checkpoint_to_resume, newest_checkpoint
from lmft.runs.run import Run
from lmft.runs.trained import recorded_config
from lmft.system.files import write_json

CHOICES = {"model": "bert", "data": "imdb"}
SECRET = "hf_SentinelThatMustNotBeWritten"


def a_config(folder, name=None, resume="auto", **values):
    return {"run": {"dir": str(folder), "name": name}, "resume": resume, **values}


def a_checkpoint(folder, name, file="last.ckpt"):
    path = folder / name / "checkpoints" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"loops": {}, "hyper_parameters": a_config(folder, name), "file": file}, path)
    checksum_file(path).write_text(checksum(path))
    return path


def break_(path):
    path.write_bytes(path.read_bytes()[:-1] + b"!")


class Begun(Run):
    """A run that begins to train as soon as it is entered."""

    def __enter__(self):
        super().__enter__()
        self.begin()
        return self


class Stop(BaseException):
    """As a signal ends a training."""


def test_nothing_is_written_before_the_run_is_entered(tmp_path):
    Run(a_config(tmp_path / "runs"), CHOICES)
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_writes(tmp_path):
    config = a_config(tmp_path / "runs", "first", data={"block_size": 128, "text_column": "text"})
    with Begun(config, CHOICES, ["model=bert", "data.train=my file.txt", "resume=never"]) as run:
        logging.getLogger("lmft.somewhere").info("a step")
    assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "command.txt", "config.yaml", "train.log"]
    assert yaml.safe_load(run.paths.config.read_text()) == config
    owner, command = run.paths.command.read_text().splitlines()
    assert owner.startswith(f"# process {os.getpid()} on {socket.gethostname()} since 20")
    assert command == "python -m lmft.train model=bert 'data.train=my file.txt' run.name=first"
    assert run.paths.log.read_text().endswith("INFO lmft.somewhere: a step\n")
    logging.getLogger("lmft").warning("after the run")
    assert "after" not in run.paths.log.read_text()


def test_two_runs_of_the_same_second_get_two_folders(tmp_path):
    runs = [Begun(a_config(tmp_path), CHOICES) for _ in range(3)]
    for run in runs:
        with run:
            pass
    assert len({run.folder for run in runs}) == 3
    assert all(run.name.startswith("bert-imdb-20") for run in runs)
    assert all(a.name == b.name or b.name.endswith(("-2", "-3")) for a, b in pairwise(runs))


@pytest.mark.parametrize("name", ["..", "../x", "/x", "a/../b", "a/b/c", ".hidden", "a b", "", "a\\b", "-x", "a/"])
def test_a_name_cannot_leave_the_folder_of_runs(tmp_path, name):
    with pytest.raises(UserError, match="cannot be a run's name"):
        Run(a_config(tmp_path, name))


@pytest.mark.parametrize("name", ["x", "sweep/optimizer.lr=1e-05,seed=1", "été_2", 7])
def test_a_name_can_be(tmp_path, name):
    with Run(a_config(tmp_path, name)) as run:
        assert run.name == str(name) and run.folder.is_dir()


def test_one_folder_one_process(tmp_path):
    with Run(a_config(tmp_path, "x")), pytest.raises(UserError) as error, Run(a_config(tmp_path, "x")):
        pass
    assert "in use" in error.value.what and f"process {os.getpid()} on {socket.gethostname()}" in str(error.value)
    with Run(a_config(tmp_path, "x")):
        pass


def test_the_lock_of_a_killed_process_is_none(tmp_path):
    code = (
        "import sys, time; from lmft.runs.run import Run\n"
        f"with Run({a_config(tmp_path, 'x')!r}): print('in', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="in use") as error, Run(a_config(tmp_path, "x")):
            pass
        assert f"process {process.pid} on" in str(error.value)
        process.send_signal(signal.SIGKILL)
        process.wait()
    with Run(a_config(tmp_path, "x")):
        pass


def test_whoever_is_locked_out_reads_who_has_the_run_now(tmp_path, monkeypatch):
    """Also while a large checkpoint is still being read."""

    def choose(folder, name, resume):
        with pytest.raises(UserError, match="in use") as error, Run(a_config(tmp_path, "x")):
            pass
        assert f"process {os.getpid()} on" in str(error.value)

    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.yaml").touch()
    (tmp_path / "x" / ".owner").write_text("process 1 on mars since 2000")
    monkeypatch.setattr("lmft.runs.run.checkpoint_to_resume", choose)
    with Run(a_config(tmp_path, "x")):
        pass


def test_a_new_folder_is_removed_after_a_users_mistake(tmp_path):
    with pytest.raises(UserError), Run(a_config(tmp_path / "deep" / "runs", "x")):
        raise UserError("no text")
    with pytest.raises(UserError), Run(a_config(tmp_path / "runs"), CHOICES):
        raise UserError("no text")
    with pytest.raises(UserError), Run(a_config(tmp_path / "runs", "x", resume="must")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_or_was_trained_stays(tmp_path):
    with Begun(a_config(tmp_path, "old")):
        pass
    with pytest.raises(UserError), Run(a_config(tmp_path, "old")) as old:
        raise UserError("no text")
    assert old.paths.config.exists() and old.status() is None
    with pytest.raises(UserError), Begun(a_config(tmp_path, "new")) as new:
        a_checkpoint(tmp_path, "new")
        raise UserError("out of text")
    assert new.status() == "failed" and newest_checkpoint(new.paths)


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("words")
    with pytest.raises(UserError, match="not a run's folder"), Run(a_config(tmp_path, "thesis")):
        pass
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter1.txt"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("x", None):
        with pytest.raises(UserError, match="cannot make the folder"), Run(a_config(tmp_path / "file", name), CHOICES):
            pass


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("bug"), "failed"), (KeyboardInterrupt(), "stopped")])
def test_how_a_run_ended(tmp_path, error, status):
    with pytest.raises(type(error)), Begun(a_config(tmp_path, "x")) as run:
        raise error
    assert run.status() == status and "Traceback" in run.paths.log.read_text()
    told = json.loads(run.paths.metrics.read_text())
    assert told.get("error") == ("RuntimeError: bug" if status == "failed" else None)
    with pytest.raises(type(error)), Begun(a_config(tmp_path, "x")) as run:
        run.write_metrics({"status": "complete"})
        raise error
    assert run.status() == "complete"


def test_metrics_are_whole_valid_json(tmp_path):
    with Run(a_config(tmp_path, "x")) as run:
        run.write_metrics({"status": "complete", "after": {"loss": 900.0, "perplexity": float("inf")}, "l": [1, "é"]})
        with pytest.raises(TypeError):
            run.write_metrics({"status": object()})
    read = json.loads(run.paths.metrics.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert read == {"status": "complete", "after": {"loss": 900.0, "perplexity": None}, "l": [1, "é"]}
    assert not list(run.folder.glob(".metrics*"))


def test_a_stopped_run_tells_the_command_that_goes_on(tmp_path):
    with pytest.raises(Stop), Begun(a_config(tmp_path, "x"), CHOICES, ["model=bert", "resume=never"]) as run:
        raise Stop
    told = json.loads(run.paths.metrics.read_text())
    assert told == {"status": "stopped", "command": "python -m lmft.train model=bert run.name=x"}
    assert run.paths.command.read_text().splitlines()[1] == told["command"]


def test_a_run_whose_folder_vanishes(tmp_path):
    with pytest.raises(UserError, match="folder is gone"), Begun(a_config(tmp_path, "x")) as run:
        shutil.rmtree(run.folder)
        run.write_metrics({"status": "complete"})
    for error in (UserError("one line"), Stop()):
        with pytest.raises(type(error)) as raised, Begun(a_config(tmp_path, "x")) as run:
            shutil.rmtree(run.folder)
            raise error
        assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_hides_no_error(tmp_path, monkeypatch, capfd, caplog):
    """What train.log and metrics.json cannot say any more is said once, and the run's own error comes out."""
    with monkeypatch.context() as full, pytest.raises(RuntimeError, match="bug"), Begun(a_config(tmp_path, "x")) as run:
        full.setattr("lmft.runs.log._LogFile.flush", out_of_space)
        full.setattr("lmft.system.files.sync", out_of_space)
        raise RuntimeError("bug")
    assert capfd.readouterr().err == f"{run.paths.log} could not be written: No space left on device\n"
    assert "metrics.json could not be written" in caplog.text and run.status() is None


def out_of_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def to_resume(run, resume):
    return checkpoint_to_resume(run.paths, run.name, resume)


def test_which_checkpoint_is_taken(tmp_path):
    assert to_resume(Run(a_config(tmp_path, "x")), "auto") is None
    a_checkpoint(tmp_path, "x", "step=90.ckpt")
    later = a_checkpoint(tmp_path, "x", "step=1000.ckpt")
    a_checkpoint(tmp_path, "x", "best.ckpt")
    run = Run(a_config(tmp_path, "x"))
    assert to_resume(run, "auto") == later
    last = a_checkpoint(tmp_path, "x")
    assert to_resume(run, "auto") == to_resume(run, "must") == last
    assert to_resume(run, str(later)) == later  # its own: back to an earlier step
    with pytest.raises(UserError, match="'x' is in use"):
        to_resume(run, "never")


def test_a_broken_checkpoint_is_passed_over_and_named(tmp_path):
    older, newer, last = (a_checkpoint(tmp_path, "x", f"{name}.ckpt") for name in ("step=20", "step=40", "last"))
    for path in (newer, last):
        break_(path)
    (tmp_path / "x" / "config.yaml").touch()
    with Begun(a_config(tmp_path, "x")) as run:
        assert run.checkpoint == older
    line, resuming = run.paths.log.read_text().splitlines()
    assert resuming.endswith(f"resuming from {older}")
    assert "last.ckpt is broken (its checksum is " in line and "step=40.ckpt is broken" in line
    assert line.endswith("; resuming from step=20.ckpt") and "WARNING" in line


def test_a_run_does_not_begin_anew_over_broken_checkpoints(tmp_path):
    last, best = a_checkpoint(tmp_path, "x"), a_checkpoint(tmp_path, "x", "best.ckpt")
    break_(last)
    (tmp_path / "x" / "config.yaml").touch()
    for resume in ("auto", "must", str(tmp_path / "x"), str(last)):
        with pytest.raises(UserError, match=r"last\.ckpt is broken") as error, Run(a_config(tmp_path, "x", resume)):
            pass
        assert len(str(error.value).splitlines()) <= 3
    with Run(a_config(tmp_path, "x", str(best))) as run:  # it may lie within a step: taken only when it is asked for
        assert run.checkpoint == best


def test_a_missing_last_checkpoint_is_said(tmp_path):
    newest = [a_checkpoint(tmp_path, "x", f"step={step}.ckpt") for step in (9, 10)][-1]
    (tmp_path / "x" / "config.yaml").touch()
    with Begun(a_config(tmp_path, "x")) as run:
        assert run.checkpoint == newest
    assert "last.ckpt is missing; resuming from step=10.ckpt" in run.paths.log.read_text()


def test_a_named_checkpoint_that_cannot_be_verified_is_said(tmp_path):
    path = a_checkpoint(tmp_path, "old")
    with Run(a_config(tmp_path, "new", str(path))) as run:
        assert run.checkpoint == path
        (line,) = run.paths.log.read_text().splitlines()
        assert line.endswith(f"resuming from {path}")
    checksum_file(path).unlink()
    with Run(a_config(tmp_path, "new", str(path))) as run:
        assert run.checkpoint == path and f"{path} has no checksum" in run.paths.log.read_text()


def test_a_killed_runs_litter_is_swept(tmp_path):
    last = a_checkpoint(tmp_path, "x")
    litter = [tmp_path / "x" / ".metrics.json.7.writing", last.with_name(".step=9.ckpt.7.writing")]
    for path in (*litter, tmp_path / "x" / ".lock"):
        path.touch()
    with Begun(a_config(tmp_path, "x")) as run:
        assert run.checkpoint == last
    assert not any(path.exists() for path in litter)


def test_continuing_from_another_run(tmp_path):
    last = a_checkpoint(tmp_path, "old")
    (tmp_path / "old" / "config.yaml").write_text("seed: 1")
    new = Run(a_config(tmp_path, "new"))
    assert to_resume(new, str(tmp_path / "old")) == to_resume(new, str(last)) == last
    with pytest.raises(UserError, match=r"did you mean .*old"):
        to_resume(new, str(tmp_path / "odl"))
    with pytest.raises(UserError, match="no such checkpoint"):
        to_resume(new, str(last.with_name("lst.ckpt")))
    a_checkpoint(tmp_path, "new")
    with pytest.raises(UserError, match="in use"):
        to_resume(new, str(last))


def test_a_name_in_use_keeps_its_records(tmp_path):
    with Begun(a_config(tmp_path, "x", seed=1)):
        a_checkpoint(tmp_path, "x")
    with pytest.raises(UserError, match="in use"), Run(a_config(tmp_path, "x", "never", seed=2)) as run:
        pass
    assert yaml.safe_load((tmp_path / "x" / "config.yaml").read_text())["seed"] == 1
    with Begun(a_config(tmp_path, "x")) as run:
        assert run.checkpoint == tmp_path / "x" / "checkpoints" / "last.ckpt"


def test_further_processes_share_the_folder_and_write_nothing(tmp_path, monkeypatch):
    with Run(a_config(tmp_path), CHOICES) as first:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setenv("LOCAL_RANK", "1")
        with Run(a_config(tmp_path), CHOICES) as second:
            second.write_metrics({"status": "complete"})
            assert second.folder == first.folder
        assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="needs a name"), Run(a_config(tmp_path), CHOICES):
        pass


def test_no_secret_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET + "Env")
    config = a_config(
        tmp_path,
        "x",
        logger={"wandb": {"api_key": SECRET + "Key", "note": f"with {SECRET}Env"}},
        model={"tokenizer": {"vocab_size": 5}, "mask_token": "[MASK]", "num_key_value_heads": 4},
    )
    arguments = [f"+logger.wandb.api_key={SECRET}Key", f"+logger.wandb.settings={{x:{SECRET}Key}}"]
    with pytest.raises(RuntimeError), Begun(config, CHOICES, arguments) as run:
        logging.getLogger("lmft").info("logged in with %s", SECRET + "Env")
        run.write_metrics({"status": "complete", "note": SECRET + "Key"})
        raise RuntimeError(SECRET + "Key")
    assert SECRET not in "".join(path.read_text() for path in run.folder.iterdir())
    written = yaml.safe_load(run.paths.config.read_text())
    assert written["model"] == config["model"] and written["logger"]["wandb"]["api_key"] == REDACTED
    assert run.redacted(config)["logger"]["wandb"]["note"] == f"with {REDACTED}"


def test_which_names_are_secrets():
    secret = ["api_key", "HF_TOKEN", "hub_token", "password", "client_secret", "apiKey", "key", "AWS_SECRET_ACCESS_KEY"]
    public = ["tokenizer", "mask_token", "num_tokens", "text_column", "tokens_per_second", "keyboard", "eos_token"]
    assert all(map(is_secret_name, secret)) and not any(map(is_secret_name, public))
    assert Redactor({"password": "x"}).text("x marks the spot") == "x marks the spot"  # too short to look for


def files(folder):
    """Every file of a run but its lock, with its content."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("error", [UserError("refused"), Stop()])
def test_what_ends_before_a_run_begins_leaves_each_file_as_it_was(tmp_path, error):
    with Begun(a_config(tmp_path, "x", seed=1)) as run:
        a_checkpoint(tmp_path, "x")
        logging.getLogger("lmft").info("a step")
        run.write_metrics({"status": "complete"})
    before = files(run.folder)
    with pytest.raises(type(error)), Run(a_config(tmp_path, "x", trust={"targets": ["a"]})):
        logging.getLogger("lmft").warning("refused at once")
        raise error
    assert files(run.folder) == before
    with pytest.raises(UserError, match="other settings"), Run(a_config(tmp_path, "x", seed=2)):
        pass
    assert files(run.folder) == before


def test_other_settings_are_known_before_anything_heavy(tmp_path):
    with Begun(a_config(tmp_path, "x", seed=1)):
        last = a_checkpoint(tmp_path, "x")
    Run(a_config(tmp_path, "x", seed=1, trust={"targets": ["a"]})).check_settings()
    Run(a_config(tmp_path, "y", seed=2)).check_settings()
    for name, resume in (("x", "auto"), ("x", "must"), ("y", str(tmp_path / "x")), ("y", str(last))):
        with pytest.raises(UserError, match="other settings: seed: 1 → 2"):
            Run(a_config(tmp_path, name, resume, seed=2)).check_settings()
    last.unlink()  # an attempt that has saved nothing may be begun anew in another way
    Run(a_config(tmp_path, "x", seed=2)).check_settings()


def test_a_fault_before_a_run_begins_is_logged_and_keeps_what_it_has(tmp_path):
    with Begun(a_config(tmp_path, "x")) as run:
        run.write_metrics({"status": "complete"})
    with pytest.raises(RuntimeError), Run(a_config(tmp_path, "x")):
        raise RuntimeError("bug")
    assert run.status() == "complete" and "RuntimeError: bug" in run.paths.log.read_text()


@pytest.fixture
def finished(tmp_path):
    tokenizer = {"name_or_path": None, "train": True, "vocab_size": 9}
    model = {"name_or_path": None, "from_scratch": True, "config": {"dim": 3}, "revision": "a", "tokenizer": tokenizer}
    data = {"path": "imdb", "batch_size": 64, "block_size": 32, "cache_dir": "there"}
    config = a_config(tmp_path, "done", model=model, data=data, trainer={"accelerator": "gpu"}, seed=5)
    with Begun(config) as run:
        run.paths.model.mkdir()
    return run.folder


NOW = {
    "run": "runs/done",
    "checkpoint": None,
    "model": {"name_or_path": None},
    "data": {"path": "wikitext", "batch_size": 8, "cache_dir": "here"},
    "trainer": {"accelerator": "cpu"},
    "seed": 1,
    "output": None,
}


def test_a_finished_run_is_used_with_its_own_config(finished):
    config = recorded_config(finished, NOW, [])
    model = config["model"]
    assert model["name_or_path"] == model["tokenizer"]["name_or_path"] == str(finished / "model")
    assert not model["from_scratch"] and model["config"] == {} and model["revision"] is None
    words = {"add_tokens": [], "replace": False, "warm_up_steps": 0}  # are in the exported vocabulary
    assert model["tokenizer"] == {"name_or_path": str(finished / "model"), "train": False, "vocab_size": 9, **words}
    assert config["data"] == {"path": "imdb", "batch_size": 64, "block_size": 32, "cache_dir": "here"}
    assert config["trainer"] == {"accelerator": "cpu"} and config["seed"] == 5
    assert config["run"] == "runs/done" and config["output"] is None


def test_the_command_line_goes_before_the_runs_config(finished):
    one = recorded_config(finished, NOW, ["run=x", "data.batch_size=8"])
    assert one["data"] == {"path": "imdb", "batch_size": 8, "block_size": 32, "cache_dir": "here"}
    assert recorded_config(finished, NOW, ["data=wikitext", "++seed=1"])["data"] == NOW["data"]


def test_a_run_that_is_not_there_or_not_done(finished):
    with pytest.raises(UserError, match="did you mean") as error:
        recorded_config(finished.with_name("dome"), NOW, [])
    assert str(finished) in str(error.value)
    (finished / "model").rmdir()
    write_json(finished / "metrics.json", {"status": "stopped"})
    with pytest.raises(UserError, match=r"no model yet \(status: stopped\)"):
        recorded_config(finished, NOW, [])


@pytest.mark.parametrize("kept", [(), ("not-finite-step=1.json",), ("checkpoints/step=1.ckpt",)])
def test_a_mistake_found_late_leaves_only_what_is_worth_keeping(kept, tmp_path):
    run = Begun(a_config(tmp_path / "runs", "x"))
    with pytest.raises(UserError), run:
        for name in ("metrics.csv", "samples.jsonl", "tokenizer/tokenizer.json", *kept):
            (run.folder / name).parent.mkdir(exist_ok=True)
            (run.folder / name).write_text("...")
        raise UserError("too small a share of an epoch")
    assert run.folder.exists() == bool(kept)
    assert run.status() == ("failed" if kept else None)
