import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.source import open_source
from lmft.errors import UserError
from tests.helpers.options import data_options

COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path


def source_of(split="train", name=None, revision=None, path="acme/Reviews"):
    splits = {"train": "train", "validation": "test"}
    source = open_source(data_options(path=path, name=name, revision=revision, splits=splits), split)
    assert source is not None
    return source


def texts_of(source) -> list[str]:
    return list(documents(source, RowText(("text",)), source.tally()))


def converted(root: Path, config: str, commit: str = COMMIT, num_shards: int = 1) -> Path:
    """What `datasets` leaves of a data set that it has loaded from the hub."""
    folder = root / "datasets" / "acme___reviews" / config / "0.0.0" / commit
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"config_name": config, "splits": {"train": {}, "test": {}}}))
    for split in ("train", "test"):
        for shard in range(num_shards):
            part = f"-{shard:05}-of-{num_shards:05}" if num_shards > 1 else ""
            table = pa.table({"text": [f"{config} {split} {shard} {i}" for i in range(2)], "label": [0, 1]})
            with pa.ipc.new_stream(folder / f"reviews-{split}{part}.arrow", table.schema) as writer:
                writer.write_table(table)
    return folder


def copied(root: Path) -> Path:
    """What `hf download` leaves of a data set."""
    repository = root / "hub" / "datasets--acme--Reviews"
    snapshot = repository / "snapshots" / COMMIT
    (snapshot / "data").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for split in ("train", "test"):
        table = pa.table({"text": [f"default {split} 0 {i}" for i in range(2)]})
        pq.write_table(table, snapshot / "data" / f"{split}-00000-of-00001.parquet")
    return snapshot


def test_converted_before(caches):
    converted(caches, "default")
    source = source_of()
    assert texts_of(source) == ["default train 0 0", "default train 0 1"]
    assert source.name == "acme/Reviews, split train"
    assert [str(place) for place, _ in source.rows()] == [f"{source.name}, row {i}" for i in (1, 2)]
    assert texts_of(source_of("validation")) == ["default test 0 0", "default test 0 1"]


def test_converted_in_shards(caches):
    converted(caches, "default", num_shards=2)
    assert texts_of(source_of()) == [f"default train {shard} {i}" for shard in (0, 1) for i in (0, 1)]


def test_configurations(caches):
    converted(caches, "large")
    assert texts_of(source_of(name="large")) == texts_of(source_of())  # the only one
    assert source_of(name="large").fingerprint == source_of().fingerprint
    converted(caches, "small")
    assert texts_of(source_of(name="small"))[0] == "small train 0 0"
    with pytest.raises(UserError, match="nor in the cache"):  # which of the two is the default?
        source_of()
    with pytest.raises(UserError, match="nor in the cache"):
        source_of(name="medium")
    converted(caches, "default")
    assert texts_of(source_of())[0] == "default train 0 0"


def test_revisions(caches):
    os.utime(converted(caches, "default", "a" * 40), (1, 1))
    converted(caches, "default", "b" * 40)
    converted(caches, "default", "d" * 40 + ".incomplete")
    newest, older = source_of(), source_of(revision="a" * 40)
    assert newest.fingerprint == source_of(revision="b" * 40).fingerprint != older.fingerprint
    with pytest.raises(UserError, match="nor in the cache"):
        source_of(revision="e" * 40)


def test_downloaded_ahead(caches):
    copied(caches)
    source = source_of()
    assert texts_of(source) == ["default train 0 0", "default train 0 1"]
    assert texts_of(source_of("validation")) == ["default test 0 0", "default test 0 1"]
    converted(caches, "default")
    assert source_of().fingerprint == source.fingerprint
    with pytest.raises(UserError, match=r"cannot be loaded.*Available: \['default'\]"):
        source_of(name="large")


def test_splits(caches):
    converted(caches, "default")
    data = data_options(path="acme/Reviews", splits={"train": "tran"})
    with pytest.raises(UserError, match=r"no split 'tran' \(did you mean 'train'\?\): 'acme/Reviews' has train, test"):
        open_source(data, "train")


def test_unreachable_and_not_cached_is_said_in_three_lines(tmp_path):
    script = (
        "from tests.helpers.options import data_options\n"
        "from lmft.data.sources.source import open_source\n"
        "from lmft.errors import user_errors_end_the_process\n"
        "with user_errors_end_the_process():\n"
        "    open_source(data_options(path='acme/reviews'), 'train')\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 2
    assert len(lines) == 3
    assert lines[0].startswith("error: 'acme/reviews' is neither a local folder nor in the cache ")
    assert lines[1] == "  where: data.path=acme/reviews"
    assert "data.path=FOLDER" in lines[2]
    assert "hf download acme/reviews --repo-type dataset" in lines[2]
