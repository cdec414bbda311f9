"""A store of ten billion tokens, most of it holes in sparse files: its first batch takes the memory of a small one."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lmft.assembly.tokens import vocabulary_of
from lmft.data import known_whole
from lmft.data.corpus import Corpus
from lmft.data.datamodule import DataModule
from lmft.data.examples import column
from lmft.data.loading import load_corpus
from lmft.data.schedule.noise import mix
from lmft.data.store import _meta_checksum
from lmft.objectives.causal import NextToken
from lmft.preflight import repeats, settings
from lmft.preflight.sample import Text
from tests.helpers.options import data_options
from tests.helpers.stores import counting

TOKENS_EACH = 20_000
NUM_DOCUMENTS = 500_000  # ten billion tokens
TENTH = 50_000
MORE = 2 << 20  # bytes that ten times as much text may take: 16 for each document held out, and no other


def grow(folder: Path, num_documents: int) -> None:
    """Replace a store's documents by others of zeros, which take no place on the disk."""
    num_tokens = num_documents * TOKENS_EACH
    sizes = {"tokens": 2 * num_tokens, "flags": num_tokens}
    sizes |= dict.fromkeys(("bytes", "unknown_tokens", "unknown_bytes"), 4 * num_documents)
    for name, size in sizes.items():
        (folder / f"{name}.bin").write_bytes(b"")
        os.truncate(folder / f"{name}.bin", size)
    np.arange(0, num_tokens + 1, TOKENS_EACH).astype("<i8").tofile(folder / "offsets.bin")
    mix(np.arange(num_documents, dtype=np.uint64)).tofile(folder / "hashes.bin")
    meta = json.loads((folder / "store.json").read_text())
    del meta["checksum"]
    meta |= {"tokens": num_tokens, "documents": num_documents}
    (folder / "store.json").write_text(json.dumps({**meta, "checksum": _meta_checksum(meta)}))
    known_whole.remember_whole(folder)


@pytest.fixture
def loaded(tokenizer, tmp_path, monkeypatch):
    """A function that opens sources whose stores have so many documents; and the most memory of Python and numpy."""
    monkeypatch.chdir(tmp_path)

    def load(num_documents: int, **options) -> tuple[Corpus, int]:
        Path("text.txt").write_text("".join(f"text number {number}\n" for number in range(400)))
        values = {"block_size": 512, "validation_fraction": 0.01, "cache_dir": f"cache-{num_documents}", **options}
        config = data_options(**values)
        load_corpus(config, tokenizer, NextToken(), 1, counting)
        for folder in Path(config.cache_dir, "stores").glob("*/"):
            grow(folder, num_documents)
        tracemalloc.start()
        corpus = load_corpus(config, tokenizer, NextToken(), 1, counting)
        data = DataModule(corpus, NextToken(), vocabulary_of(tokenizer), seed=1, batch_size=8, num_workers=0)
        data.check_targets()
        assert next(iter(data.train_dataloader())).inputs["input_ids"].shape == (8, 512)
        middle = len(corpus.examples["train"]) // 16
        assert len(data._schedule("train", 0).micro_batch(3, middle).examples) == 8
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return corpus, most

    return load


def test_a_text_of_ten_billion_tokens_takes_hardly_more_memory_than_a_tenth_of_it(loaded):
    _, most_of_tenth = loaded(TENTH, train="text.txt")
    corpus, most = loaded(NUM_DOCUMENTS, train="text.txt")
    ledger = corpus.ledger
    assert sum(ledger[split]["tokens"] for split in ledger) == NUM_DOCUMENTS * TOKENS_EACH
    assert abs(ledger["validation"]["documents"] - NUM_DOCUMENTS / 100) < 400
    assert most - most_of_tenth < MORE


def test_a_mixture_of_such_texts(loaded):
    sources = {"one": {"train": "text.txt"}, "two": {"train": "text.txt", "validation_fraction": 0, "weight": 3}}
    corpus, most = loaded(NUM_DOCUMENTS, sources=sources)
    _, most_of_tenth = loaded(TENTH, sources=sources)
    assert corpus.ledger["train/two"]["tokens"] == NUM_DOCUMENTS * TOKENS_EACH
    assert most - most_of_tenth < 2 * MORE


def test_lines_of_such_a_text_are_listed_in_files(loaded, monkeypatch):
    monkeypatch.setattr(column, "_IN_MEMORY", 1 << 17)
    values = {"train": "text.txt", "examples": "lines", "too_long": "cut"}
    _, most_of_tenth = loaded(TENTH, **values)
    corpus, most = loaded(NUM_DOCUMENTS, **values)
    lines = [corpus.examples[split] for split in ("train", "validation")]
    assert sum(map(len, lines)) == NUM_DOCUMENTS
    assert most - most_of_tenth < MORE


def test_what_is_looked_for_before_a_training_takes_no_more_either(loaded, tokenizer):
    corpus, _ = loaded(NUM_DOCUMENTS, train="text.txt")
    texts = corpus.documents["train"]
    tracemalloc.start()
    text = Text(texts, tokenizer)
    assert repeats.many_copies(texts, "train") is None
    assert settings.short_blocks(texts, 512, 4096, "train") is not None
    assert settings.no_end_of_text(texts, is_causal=True) is not None
    assert len(text.tokens(len(texts) - 1, most=9)) == 9
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 60 << 20  # hashes and lengths of at most two million documents are compared


def test_a_large_store_is_read_whole_again_only_if_a_file_has_changed(loaded, monkeypatch):
    corpus, _ = loaded(TENTH, train="text.txt")
    folder = corpus.documents["train"].store.folder
    assert known_whole.is_known_whole(folder)
    with (folder / "bytes.bin").open("r+b") as file:
        file.write(b"\1")
    assert not known_whole.is_known_whole(folder)
