"""Real examples for the pictures: tiny models' batches of a short text, made by lmft."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lmft import api
from lmft.data.schedule.sampler import MicroBatch
from lmft.inspection import Viewer

FOLDER = Path(__file__).parent
TEXT = FOLDER / "text.txt"
PAIRS = FOLDER / "pairs.jsonl"
CHATS = FOLDER / "chats.jsonl"
LINES = ("data.examples=lines", "data.block_size=64")


@contextmanager
def own_cache() -> Iterator[None]:
    """Keep token stores and vocabularies in a temporary folder."""
    before = os.environ.get("LMFT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LMFT_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("LMFT_CACHE")
            if before is not None:
                os.environ["LMFT_CACHE"] = before
            parts.cache_clear()


@cache
def parts(*options: str) -> api.Parts:
    """Return the parts of a training on the text, or on what the options name."""
    usual = {"data": "files", "data.train": str(TEXT), "data.validation_fraction": "0"}
    if any(option.startswith("data.validation=") for option in options):
        usual["data.validation_fraction"] = "null"
    given = {option.partition("=")[0] for option in options}
    return api.assemble(
        api.compose([*(f"{name}={value}" for name, value in usual.items() if name not in given), *options])
    )


def batch(options: tuple[str, ...], numbers: list[int], epoch: int = 0) -> dict[str, Any]:
    """Return a micro-batch of these examples, as plain data."""
    made = parts(*options)
    viewer = Viewer(made.datamodule(), made.tokenizer, made.module_class.family.is_causal)
    return viewer.batch("train", MicroBatch(epoch, np.array(numbers)))


def example(*options: str, number: int = 0, epoch: int = 0) -> dict[str, Any]:
    """Return an example under the objective of the options, as plain data."""
    return batch(options, [number], epoch)["examples"][0]


def without_padding(tokens: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the tokens before the padding."""
    return [token for token in tokens if token["role"] != "padding"]
