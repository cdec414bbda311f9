"""Trainings on several devices: CPU processes forked from this one, told of each other as torchrun tells them."""

import json
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmft.modules.base import LanguageModel
from tests.helpers.runs import train

SECONDS = 120
"""After which processes that wait for each other are ended."""
NO_DROPOUT = {
    "distilbert_tiny": ("dropout", "attention_dropout"),
    "gpt2_tiny": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "t5_tiny": ("dropout_rate",),
    "bart_tiny": ("dropout", "attention_dropout", "activation_dropout"),
    "xlnet_tiny": ("dropout",),
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


def train_on(number: int, folder: Path, name: str, model: str, *overrides: str) -> dict[str, Any]:
    """`train_noting_losses` with weights shared among so many devices; a run of that name."""
    told = folder / f"{name}.json"
    sharded = (f"run.name={name}", "trainer=fsdp2", "trainer.accelerator=cpu", f"trainer.devices={number}")

    def task() -> None:
        torch.set_num_threads(1)
        result = train_noting_losses(folder, model, *sharded, *overrides)
        if os.environ["RANK"] == "0":
            told.write_text(json.dumps(result, default=str))

    assert in_processes(number, task) == [0] * number
    return json.loads(told.read_text())
