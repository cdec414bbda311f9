"""Tiny causal models in folders, conversations in files, and configs that train the ones on the others in a second."""

import json
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.models.loading.weights import fit_to_tokenizer
from lmft.runs.run import Run
from lmft.training.trainer import silence_libraries
from tests.helpers.models import TEXTS, TINY_CAUSAL, WORDS
from tests.helpers.runs import write_text

silence_libraries()

SCRATCH = (
    "model=gpt2_tiny",
    "model.config.n_layer=1",
    "model.config.n_embd=32",
    "model.config.n_head=2",
    "model.config.n_positions=64",
    "model.tokenizer.vocab_size=320",
    "model.probes=[]",
)
"""A new model with a vocabulary of its own, trained on the text."""


def saved(folder: Path, architecture: str, **overrides: Any) -> Path:
    """A folder of a tiny model and GPT-2's kind of tokenizer, with one special token and no chat template."""
    path = folder / "-".join([architecture, *map(str, overrides.values())])
    if not path.exists():
        tokenizer = train_vocabulary(TEXTS, "bpe", 320, lowercase=False, style="gpt2")
        config = AutoConfig.for_model(architecture, **TINY_CAUSAL.get(architecture, {}), **overrides)
        fit_to_tokenizer(config, tokenizer)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
    return path


def conversations(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows of one to three questions and answers, some behind a system message."""
    draw = random.Random(seed)

    def words(most: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(1, most)))

    rows = []
    for i in range(count):
        messages = [{"role": "system", "content": words(3)}] if i % 3 == 0 else []
        for _ in range(1 + i % 3):
            messages += [{"role": "user", "content": words(8)}, {"role": "assistant", "content": words(4)}]
        rows.append({"messages": messages})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of a JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_arguments(folder: Path) -> list[str]:
    """Lines of words for training and validation; runs and cache lie in `folder`."""
    for name, num_lines in (("text.txt", 60), ("held_out.txt", 15)):
        if not (folder / name).exists():
            write_text(folder / name, num_lines)
    files = [f"data.train={folder}/text.txt", f"data.validation={folder}/held_out.txt"]
    return ["data=files", *files, "data.block_size=32", *_common(folder)]


def chat_arguments(folder: Path, model: Path | None = None) -> list[str]:
    """Conversations for training and validation, and a model from its folder: Llama's shape if none is given."""
    for name, count, seed in (("chats.jsonl", 24, 1), ("held_out.jsonl", 9, 2)):
        if not (folder / name).exists():
            write_rows(folder / name, conversations(count, seed))
    files = [f"data.train={folder}/chats.jsonl", f"data.validation={folder}/held_out.jsonl"]
    model = model or saved(folder, "llama")
    chats = ["data=chat", *files, "data.chat_template=chatml", "data.block_size=160"]
    return ["model=causal", f"model.name_or_path={model}", "optimizer.lr=1e-2", *chats, *_common(folder)]


def _common(folder: Path) -> list[str]:
    return [
        f"data.cache_dir={folder}/cache",
        "data.batch_size=4",
        "data.num_workers=0",
        "trainer=cpu",
        "trainer.precision=32-true",
        "trainer.max_epochs=2",
        "model.generation.max_new_tokens=6",
        f"run.dir={folder}/runs",
    ]


def train(*arguments: str) -> tuple[Run, dict[str, Any]]:
    """A training: the run, and what its metrics.json holds."""
    config = compose(arguments)
    run = Run(config)
    return run, fit(config, run)


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Hydra sets up logging for a process that ends soon; here it continues."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    disabled = {logger: logger.disabled for logger in _loggers()}
    try:
        yield
    finally:
        root.handlers[:], root.level = handlers, level
        for logger in _loggers():
            logger.disabled = disabled.get(logger, False)


def _loggers() -> list[logging.Logger]:
    known = logging.getLogger().manager.loggerDict.values()
    return [logger for logger in known if isinstance(logger, logging.Logger)]
