"""Trainings on several devices: CPU processes forked from this one, told of each other as torchrun tells them."""

import json
import os
import re
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmft.modules.base import LanguageModel
from lmft.runs.folder import RunFolder
from tests.helpers.closeness import assert_close, assert_same_scores
from tests.helpers.runs import train

SHORT = ("trainer.max_steps=3", "trainer.val_check_interval=2", "optimizer.lr=1e-3", "scheduler=constant_with_warmup")
"""The last validation is at the end of a training."""
FEW = (*SHORT, "data.probes=['a fox']")
SECONDS = 120
"""After which processes that wait for each other are ended."""
NO_DROPOUT = {
    "distilbert_tiny": ("dropout", "attention_dropout"),
    "gpt2_tiny": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "t5_tiny": ("dropout_rate",),
    "bart_tiny": ("dropout", "attention_dropout", "activation_dropout"),
    "xlnet_tiny": ("dropout",),
    "albert": ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
}


def in_processes(number: int, task: Callable[..., object], *arguments: object) -> list[int]:
    """Does `task` in so many processes. Returns of each 0 if it ended well, minus the signal if one killed it.

    When one has failed, the others, which may wait for it, are ended.
    """
    port = _free_port()
    pids = [_forked(rank, number, port, task, *arguments) for rank in range(number)]
    codes: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while len(codes) < number:
        for pid in set(pids) - codes.keys():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()) or time.monotonic() > deadline:
            for pid in set(pids) - codes.keys():
                os.kill(pid, signal.SIGKILL)
                codes[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def _forked(rank: int, number: int, port: int, task: Callable[..., object], *arguments: object) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        task(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def options(folder: Path, model: str, *overrides: str) -> list[str]:
    """Of a tiny training without dropout, which would differ from device to device."""
    none = [f"model.config.{name}=0.0" for name in NO_DROPOUT[model]]
    return [*none, "trainer.log_every_n_steps=1", "checkpoint.every_n_steps=1", "checkpoint.keep_last=-1", *overrides]


def train_noting_losses(folder: Path, model: str, *overrides: str) -> dict[str, Any]:
    """A tiny training: metrics.json, with the training losses unrounded as `losses`."""
    losses: list[float] = []
    log = LanguageModel.log_training_loss

    def noting(self: LanguageModel) -> float | None:
        loss = log(self)
        if loss is not None:
            losses.append(float(loss))
        return loss

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LanguageModel, "log_training_loss", noting)
        _, result = train(folder, *options(folder, model, *overrides), model=model)
    return {**result, "losses": losses}


def train_on(
    number: int, folder: Path, name: str, model: str, *overrides: str, trainer: str = "fsdp2"
) -> dict[str, Any]:
    """`train_noting_losses` on so many devices, which share the weights with fsdp2; a run of that name."""
    told = folder / f"{name}.json"
    several = (f"run.name={name}", f"trainer={trainer}", "trainer.accelerator=cpu", f"trainer.devices={number}")

    def task() -> None:
        torch.set_num_threads(1)
        result = train_noting_losses(folder, model, *several, *overrides)
        if os.environ["RANK"] == "0":
            told.write_text(json.dumps(result, default=str))

    assert in_processes(number, task) == [0] * number
    return json.loads(told.read_text())


def folder_of(folder, name):
    return RunFolder(folder / "runs" / name)


def exported(folder, name):
    return load_file(folder_of(folder, name).model / "model.safetensors")


def rounded(text):
    """Answers with probabilities of five digits."""
    return re.sub(r"0\.\d{6,}(e-\d+)?", lambda number: f"{float(number[0]):.5f}", text)


def assert_alike(folder, name, found, expected_name, expected):
    """Losses to a millionth; weights, whose first steps divide gradients by themselves, to what losses allow."""
    assert len(found["losses"]) == len(expected["losses"]) > 0
    assert_close(found["losses"], expected["losses"], 1, 1e-6)
    for stage in ("before", "after"):
        assert_same_scores(found[stage], expected[stage])
    for count in ("tokens", "targets"):
        assert found["train"][count] == expected["train"][count]
    assert_close(exported(folder, name), exported(folder, expected_name), 2, 1e-4)
    of_run, of_other = folder_of(folder, name), folder_of(folder, expected_name)
    for file in ("config.json", "tokenizer.json"):
        assert (of_run.model / file).read_bytes() == (of_other.model / file).read_bytes()
    assert rounded(of_run.samples.read_text()) == rounded(of_other.samples.read_text())


def cut(folder, name, new_name, step):
    """A run as it was after a step, under another name."""
    copy = folder_of(folder, new_name)
    shutil.copytree(folder_of(folder, name).path, copy.path, ignore=shutil.ignore_patterns("last.*", "metrics.json"))
    for path in copy.checkpoints.glob("step=*"):
        if int(path.name.removeprefix("step=").partition(".")[0]) > step:
            path.unlink()
