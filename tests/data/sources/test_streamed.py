"""Data sets of the hub that are streamed: the first documents, at one commit, read once."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmft.data.sources.source import open_source
from lmft.errors import UserError
from lmft.system import hub
from tests.helpers.options import data_options

COMMIT = "0123456789" * 4


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    """A data set that `datasets` streams from a file instead of the hub; what was asked for."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": f"row {n}", "meta": {"n": n}}) + "\n" for n in range(3000)))
    asked = []
    load = datasets.load_dataset

    def load_dataset(path, name, *, split, revision, streaming):
        asked.append((path, name, split, revision))
        return load("json", data_files=str(file), split="train", streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "commit_of", lambda *_: COMMIT)
    return asked


def source_of(tmp_path, **values):
    return open_source(
        data_options(path="acme/web", streaming=True, cache_dir=str(tmp_path / "cache"), **values), "train"
    )


@pytest.mark.parametrize("count", [1, 700, 2999, 3000, 9999])
def test_the_first_documents_are_read(count, streamed, tmp_path):
    rows = list(source_of(tmp_path, max_documents=count).rows(["text"]))
    assert [row["text"] for _, row in rows] == [f"row {n}" for n in range(min(count, 3000))]
    assert str(rows[-1][0]) == f"acme/web, split train, row {min(count, 3000)}"
    assert streamed == [("acme/web", None, "train", COMMIT)]


def test_nested_columns_are_read(streamed, tmp_path):
    rows = source_of(tmp_path, max_documents=3).rows(["meta.n"])
    assert [row["meta.n"] for _, row in rows] == [0, 1, 2]


def test_the_commit_is_kept_for_the_next_time(streamed, tmp_path, monkeypatch):
    first = source_of(tmp_path, max_documents=5)
    monkeypatch.setattr(hub, "commit_of", lambda *_: pytest.fail("the hub is asked again"))
    assert source_of(tmp_path, max_documents=5).fingerprint == first.fingerprint
    assert COMMIT[:12] in first.notes[0]
    assert source_of(tmp_path, max_documents=6).fingerprint != first.fingerprint
    given = source_of(tmp_path, max_documents=5, revision="f" * 40)
    assert given.fingerprint != first.fingerprint


def test_a_failure_of_the_network_names_the_row(streamed, tmp_path, monkeypatch):
    def breaks(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", breaks)
    with pytest.raises(UserError, match="cannot be streamed: no route to host"):
        list(source_of(tmp_path, max_documents=5).rows())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"path": "acme/web", "streaming": True}, "needs the number of documents"),
        ({"path": "acme/web", "max_documents": 3}, "read only with data.streaming=true"),
        ({"train": "x.txt", "streaming": True, "max_documents": 3}, "data.path names none"),
        ({"path": "acme/web", "streaming": True, "max_documents": 0}, "data.max_documents=0 must be at least 1"),
        ({"path": "acme/web", "num_workers": -1}, "data.num_workers=-1 must not be negative"),
    ],
)
def test_options_that_do_not_fit_are_refused(values, said):
    with pytest.raises(UserError) as error:
        data_options(**values)
    assert said in str(error.value)


def test_a_local_text_is_not_streamed(tmp_path):
    with pytest.raises(UserError, match="cannot be streamed"):
        open_source(data_options(path=str(tmp_path), streaming=True, max_documents=3), "train")


@pytest.mark.parametrize("count", [1, 70, 250, 300, 999])
def test_files_of_several_row_groups_are_read_in_their_order(count, tmp_path, monkeypatch):
    paths = []
    for number in range(3):
        texts = [f"row {n}" for n in range(100 * number, 100 * number + 100)]
        paths.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(pa.table({"text": texts}), paths[-1], row_group_size=7)
    load = datasets.load_dataset
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *_, **__: load("parquet", data_files=paths, split="train", streaming=True),
    )
    monkeypatch.setattr(hub, "commit_of", lambda *_: COMMIT)
    rows = list(source_of(tmp_path, max_documents=count).rows(["text"]))
    assert [row["text"] for _, row in rows] == [f"row {n}" for n in range(min(count, 300))]
    assert str(rows[-1][0]) == f"acme/web, split train, row {min(count, 300)}"
