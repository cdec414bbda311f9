"""Verifications of tiny trainings: of one kind of check, or of all."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lmft.assembly import assemble
from lmft.config.load import compose
from lmft.training.trainer import silence_libraries
from lmft.verification.check import Check
from lmft.verification.subject import Subject
from tests.helpers.causal import SCRATCH, conversations, saved, write_rows
from tests.helpers.runs import tiny, tiny_arguments, write_text

silence_libraries()


def masked(folder: Path, *overrides: str) -> dict[str, Any]:
    return tiny(folder, *overrides)


def causal(folder: Path, *overrides: str) -> dict[str, Any]:
    """A new GPT-2 on the same text."""
    text = [each for each in tiny_arguments(folder) if not each.startswith("model")]
    return compose([*SCRATCH, *text, *overrides])


def seq2seq(folder: Path, *overrides: str) -> dict[str, Any]:
    return tiny(folder, *overrides, model="t5_tiny")


def permuted(folder: Path, *overrides: str) -> dict[str, Any]:
    return tiny(folder, *overrides, model="xlnet_tiny")


def adapted(folder: Path, *overrides: str) -> dict[str, Any]:
    """A Llama from its folder, with adapters."""
    text = [each for each in tiny_arguments(folder) if not each.startswith("model")]
    model = ["model=causal", f"model.name_or_path={saved(folder, 'llama')}", "model.lora.r=4"]
    return compose([*model, *text, *overrides])


def chats(folder: Path, *overrides: str) -> dict[str, Any]:
    """A Llama from its folder, on conversations of which the answers are learnt."""
    rows = folder / "chats.jsonl"
    if not rows.exists():
        write_rows(rows, conversations(40))
    left_out = ("model", "data=", "data.train", "data.block_size")
    common = [each for each in tiny_arguments(folder) if not each.startswith(left_out)]
    model = ["model=causal", f"model.name_or_path={saved(folder, 'llama')}"]
    data = ["data=chat", f"data.train={rows}", "data.chat_template=chatml", "data.block_size=160"]
    return compose([*model, *data, *common, *overrides])


def pairs(folder: Path, *overrides: str) -> dict[str, Any]:
    """A T5 on pairs of texts."""
    rows = folder / "pairs.jsonl"
    if not rows.exists():
        lines = write_text(folder / "sides.txt", 80).read_text().splitlines()
        sides = zip(lines[::2], lines[1::2], strict=True)
        rows.write_text("".join(json.dumps({"source": one, "target": other}) + "\n" for one, other in sides))
    return tiny(folder, "data=pairs", f"data.train={rows}", "objective=pairs", *overrides, model="t5_tiny")


def checks_of(config: dict[str, Any], *kinds: Callable[[Subject], Any]) -> dict[str, Check]:
    """The checks of these kinds, by name."""
    subject = Subject(assemble(config), torch.device("cpu"))
    return {check.name: check for make in kinds for check in make(subject)}
