"""Tiny trainings, in this process: a text file, a config for it, and a run that is over in a second."""

import csv
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmft.commands.train import fit
from lmft.config.load import compose
from lmft.runs.run import Run
from lmft.training.metrics_file import TIMES
from lmft.training.trainer import silence_libraries
from tests.helpers.models import WORDS

silence_libraries()

CHECKOUT = Path(__file__).resolve().parents[2]

TINY_MODELS = {
    "distilbert_tiny": ("dim=32", "hidden_dim=64", "n_heads=2", "n_layers=1"),
    "gpt2_tiny": ("n_embd=32", "n_layer=1", "n_head=2"),
    "t5_tiny": ("d_model=32", "d_kv=16", "d_ff=64", "num_heads=2", "num_layers=1"),
    "bart_tiny": (
        *("d_model=32", "encoder_layers=1", "decoder_layers=1", "encoder_ffn_dim=64", "decoder_ffn_dim=64"),
        *("encoder_attention_heads=2", "decoder_attention_heads=2"),
    ),
    "xlnet_tiny": ("d_model=32", "d_inner=64", "n_layer=1", "n_head=2"),
}
ALBERT = (
    *("embedding_size=16", "hidden_size=32", "num_hidden_layers=2", "num_attention_heads=2"),
    "intermediate_size=64",
)
"""Its layers share their weights."""
VOCAB_SIZES = {
    "distilbert_tiny": 120,
    "gpt2_tiny": 320,
    "t5_tiny": 170,
    "bart_tiny": 320,
    "xlnet_tiny": 80,
    "albert": 90,
}


def write_text(path: Path, num_lines: int = 60) -> Path:
    """A file of lines of 2 to 30 words."""
    draw = random.Random(1)
    lines = (" ".join(draw.choices(WORDS.split(), k=draw.randint(2, 30))) for _ in range(num_lines))
    path.write_text("\n".join(lines) + "\n")
    return path


def model_arguments(model: str) -> list[str]:
    """What makes a `*_tiny` model tinier still."""
    shape = [f"model.config.{each}" for each in {**TINY_MODELS, "albert": ALBERT}[model]]
    new = [] if model.endswith("_tiny") else ["model.from_scratch=true", "model.tokenizer.train=true"]
    return [f"model={model}", f"model.tokenizer.vocab_size={VOCAB_SIZES[model]}", *shape, *new]


def tiny_arguments(folder: Path, model: str = "distilbert_tiny") -> list[str]:
    """What makes `lmft.train` a tiny training on CPU in float32; text, cache and runs lie in `folder`."""
    text = folder / "text.txt"
    if not text.exists():
        write_text(text)
    return [
        "data=files",
        f"data.train={text}",
        "data.validation_fraction=0.2",
        f"data.cache_dir={folder}/cache",
        "data.block_size=32",
        "data.batch_size=4",
        "data.num_workers=0",
        "trainer=cpu",
        "trainer.precision=32-true",
        "trainer.max_epochs=2",
        f"run.dir={folder}/runs",
        *model_arguments(model),
    ]


def tiny(folder: Path, *overrides: str, model: str = "distilbert_tiny") -> dict[str, Any]:
    """The config of a tiny training."""
    arguments = tiny_arguments(folder, model)
    if "data=pairs" in overrides:  # which have no blocks
        arguments = [argument for argument in arguments if not argument.startswith("data.block_size")]
    if "model.tokenizer.train=false" in overrides:
        arguments = [argument for argument in arguments if not argument.startswith("model.tokenizer.vocab_size")]
    return compose([*arguments, *overrides])


def train(folder: Path, *overrides: str, model: str = "distilbert_tiny") -> tuple[Run, dict[str, Any]]:
    """A tiny training: the run, and what its metrics.json holds."""
    config = tiny(folder, *overrides, model=model)
    run = Run(config, arguments=())
    return run, fit(config, run)


def rows(run: Run) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the columns that differ from time to time."""
    with run.paths.metrics_csv.open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """metrics.json's content without speeds, memory, and the facts, of which the disk's change."""
    timed = ("seconds", "tokens_per_second", "peak_memory_gb")
    result = {name: value for name, value in result.items() if name != "facts"}
    return {**result, "train": {name: value for name, value in result["train"].items() if name not in timed}}


def start(
    home: Path, *command: str, program: Sequence[str] = (sys.executable, "-m"), checkout: Path = CHECKOUT
) -> subprocess.Popen[str]:
    """A command typed in the folder `home`, as a process of its own; several may run at a time."""
    environment = {**os.environ, "LMFT_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    environment.pop("LMFT_DEBUG", None)
    environment["PYTHONPATH"] = os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])
    words = [*program, *command]
    return subprocess.Popen(words, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
