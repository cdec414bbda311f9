"""Tiny trainings, in this process: a text file, a config for it, and a run that is over in a second."""

import csv
import random
from pathlib import Path
from typing import Any

from lmft.config import compose
from lmft.fit import fit, silence_libraries
from lmft.run import Run
from tests.conftest import WORDS

silence_libraries()

TINY_MODEL = (
    "model.config.dim=32",
    "model.config.hidden_dim=64",
    "model.config.n_heads=2",
    "model.config.n_layers=1",
    "model.tokenizer.vocab_size=120",
)


def write_text(path: Path, num_lines: int = 60) -> Path:
    """A file of lines of 2 to 30 words."""
    draw = random.Random(1)
    lines = (" ".join(draw.choices(WORDS.split(), k=draw.randint(2, 30))) for _ in range(num_lines))
    path.write_text("\n".join(lines) + "\n")
    return path


def tiny_arguments(folder: Path) -> list[str]:
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
        *TINY_MODEL,
    ]


def tiny(folder: Path, *overrides: str) -> dict[str, Any]:
    """The config of a tiny training."""
    return compose([*tiny_arguments(folder), *overrides])


def train(folder: Path, *overrides: str) -> tuple[Run, dict[str, Any]]:
    """A tiny training: the run, and what its metrics.json holds."""
    config = tiny(folder, *overrides)
    run = Run(config)
    return run, fit(config, run)


def rows(run: Run) -> list[dict[str, str]]:
    """The rows of metrics.csv, without the one column that differs from time to time."""
    with run.paths.metrics_csv.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "tokens_per_second"} for row in csv.DictReader(file)
        ]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """metrics.json's content without speeds and memory."""
    timed = ("seconds", "tokens_per_second", "peak_memory_gb")
    return {**result, "train": {name: value for name, value in result["train"].items() if name not in timed}}
