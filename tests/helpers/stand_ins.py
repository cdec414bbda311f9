"""Small things under the names that the documentation's commands use: the hub's models and data sets, files, runs."""

import csv
import gzip
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry as registered
from huggingface_hub import constants

from lmft.config.hydra_config import composed
from lmft.config.load import plain
from lmft.data.formats.chat import template as chat_template
from lmft.data.sources import python_docs
from lmft.data.sources.streamed import StreamedRows
from lmft.models.loading.vocabulary import train_vocabulary
from lmft.system import hub
from tests.helpers.causal import conversations, write_rows
from tests.helpers.models import TEXTS, WORDS, tiny_model
from tests.helpers.runs import CHECKOUT

COMMIT = "c" * 40
TEXT_FILES = ("reviews.txt", "sentences.txt", "my.txt", "news.txt", "held_out.txt", "corpus/one.txt", "corpus/two.txt")
STDLIB_FILES = 25  # of whose docstrings the built-in text is made here

# Where a command counts a model's layers or positions, it has as many as are named.
_OF_REAL_SIZE = {
    "gpt2": {"n_layer": 9, "n_positions": 1024, "n_embd": 16, "n_head": 1},
    "bart": {"max_position_embeddings": 1024},
}
_CHATS = ("smollm2",)  # models whose tokenizers have a chat template
_CHATML = Path(chat_template.__file__).with_name("templates") / "chatml.jinja"


class Bucket(MemoryFileSystem):
    """The storage behind the URLs s3://… that the documentation prints."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("s3://", "memory://"))


@contextmanager
def hub_at_hand(folder: Path, models: list[str]) -> Iterator[None]:
    """The models of these YAMLs, and the YAMLs' data sets, lie tiny in the caches of Hugging Face's libraries.

    The built-in text is a part of itself, and a bucket of s3 is in memory.
    """
    for name in models:
        _cache_model(folder / "hub", name)
    rows = [{"text": text, "label": 0} for text in paragraphs(60)]
    articles = [{"article": text, "highlights": text[:40]} for text in paragraphs(60)]
    _cache_data_set(folder / "datasets", "stanfordnlp/imdb", "plain_text", ("train", "test"), rows)
    three = ("train", "validation", "test")
    _cache_data_set(folder / "datasets", "Salesforce/wikitext", "wikitext-2-raw-v1", three, rows)
    _cache_data_set(folder / "datasets", "abisee/cnn_dailymail", "3.0.0", three, articles)
    with small_python_docs(), pytest.MonkeyPatch.context() as patch:
        stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
        patch.setattr(StreamedRows, "_opened", lambda _: stream)
        patch.setattr(hub, "commit_of", lambda *_: COMMIT)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        patch.setenv("LMFT_CACHE", str(folder / "cache"))
        patch.setitem(registered, "s3", Bucket)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in paragraphs(90))
        fsspec.filesystem("s3").pipe("/bucket/texts/all.jsonl", lines.encode())
        yield


@contextmanager
def small_python_docs() -> Iterator[None]:
    """The built-in text is a part of itself."""
    sources = python_docs._sources()[:STDLIB_FILES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(python_docs, "_sources", lambda: sources)
        patch.setattr(python_docs, "_topics", list)
        yield


def paragraphs(count: int) -> list[str]:
    """Texts of 60 to 120 words, no two the same."""
    draw = random.Random(2)
    return [" ".join(draw.choices(WORDS.split(), k=draw.randint(60, 120))) for _ in range(count)]


def write_files(folder: Path) -> None:
    """The files that the commands name."""
    for name in TEXT_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(paragraphs(90)) + "\n")
    (folder / "plays.txt").write_text("\n\n".join(paragraphs(90)))
    for i, text in enumerate(paragraphs(60)):
        code = folder / "src" / f"package_{i % 3}" / f"module_{i}.py"
        code.parent.mkdir(parents=True, exist_ok=True)
        code.write_text(f"def f(x):\n    # {text}\n    return x + {i}\n")
    bodies = "".join(json.dumps({"body": text}) + "\n" for text in paragraphs(90))
    (folder / "corpus/one.jsonl.gz").write_bytes(gzip.compress(bodies.encode()))
    (folder / "held_out.jsonl").write_text(bodies[: len(bodies) // 4].rpartition("\n")[0] + "\n")
    write_rows(folder / "chats.jsonl", conversations(60))
    talks = [{"text": f"### Human: {text}\n### Assistant: {text[:20]}"} for text in paragraphs(60)]
    write_rows(folder / "talks.jsonl", talks)
    dolly = [{"question": text, "context": text, "answer": text[:20]} for text in paragraphs(60)]
    write_rows(folder / "dolly.jsonl", dolly)
    (folder / "prompts.txt").write_text("the quick\na lazy dog\n")
    write_rows(folder / "prompts.jsonl", [{"prompt": "the quick"}, {"text": "a lazy dog"}])
    pairs = [{"source": text, "target": text[:40]} for text in paragraphs(60)]
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "wmt.jsonl", [{"translation": {"en": text, "de": text[:40]}} for text in paragraphs(60)])
    write_rows(folder / "news.jsonl", [{"title": text[:20], "body": text} for text in paragraphs(60)])
    write_rows(folder / "web.jsonl", [*({"text": text} for text in paragraphs(60)), {"text": 3}])
    with (folder / "reviews.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((text, n % 2) for n, text in enumerate(paragraphs(60)))])
    (folder / "rows.csv").write_text(
        "".join(f"{i};{text.replace(';', ',')}\n" for i, text in enumerate(paragraphs(60)))
    )
    (folder / "old.txt").write_bytes(("\n".join(paragraphs(90)) + "\n").encode() + b"caf\xe9\n")
    (folder / "saved_dataset").mkdir()
    datasets.Dataset.from_dict({"text": paragraphs(60)}).save_to_disk(folder / "saved_dataset")


def write_shown_files(folder: Path) -> None:
    """Write the files that docs/recipes.md shows: code blocks whose first line is a comment with the path."""
    text = (CHECKOUT / "docs" / "recipes.md").read_text("utf-8")
    for path, content in re.findall(r"^```(?:python|yaml)\n# (\S+/\S+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)


def make_folder(folder: Path, model: str) -> None:
    """What a command's FOLDER may hold: a model with its tokenizer, and a data set's splits."""
    _save_model(folder, model)
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": paragraphs(60)}), folder / f"{split}.parquet")


def _cache_model(cache: Path, name: str) -> None:
    repository = cache / f"models--{_config_of(name)['name_or_path'].replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    _save_model(repository / "snapshots" / COMMIT, name)


@cache
def _config_of(name: str) -> dict[str, Any]:
    return plain(composed([f"model={name}"], "predict"))["model"]


def _save_model(folder: Path, name: str) -> None:
    """A tiny model of the architecture of a YAML, with a tokenizer of its kind."""
    config = _config_of(name)
    wanted = config["tokenizer"]
    size = {"wordpiece": 160, "bpe": 340, "unigram": 180}[wanted["algorithm"]]
    tokenizer = train_vocabulary(TEXTS, wanted["algorithm"], size, wanted["lowercase"], wanted["special_tokens"])
    if name in _CHATS:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = _CHATML.read_text("utf-8")
    shape = {key: value for key, value in config["shape"].items() if isinstance(value, bool | str)}
    tiny_model(config["architecture"], tokenizer, **shape, **_OF_REAL_SIZE.get(name, {})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _cache_data_set(cache: Path, path: str, name: str, splits: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """What `datasets` leaves of a data set that it has loaded."""
    folder = cache / path.replace("/", "___") / name / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"splits": {split: {} for split in splits}}))
    table = pa.Table.from_pylist(rows)
    for split in splits:
        with pa.ipc.new_stream(folder / f"{path.rpartition('/')[2]}-{split}.arrow", table.schema) as writer:
            writer.write_table(table)
