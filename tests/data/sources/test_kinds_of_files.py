"""Folders, archives, compressed files, saved data sets, standard input, and files of unknown extensions."""

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from lmft.data.sources import standard_input
from lmft.data.sources.source import held_out_share, open_source
from lmft.errors import UserError
from tests.helpers.options import data_options
from tests.helpers.sources import open_files, read_texts

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50)
COMPRESSED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(standard_input._COPY, raising=False)


def refusal(*arguments, **options) -> UserError:
    with pytest.raises(UserError) as raised:
        read_texts(open_files(*arguments, **options))
    return raised.value


class TestCompression:
    @pytest.mark.parametrize("ending", COMPRESSED)
    def test_every_compression_in_several_parts(self, ending):
        parts = [b"one\n" * 100_000, b"two\n" * 3]
        content = b"".join(map(COMPRESSED[ending], parts))
        Path(f"x.txt.{ending}").write_bytes(content)
        source = open_files(f"x.txt.{ending}")
        advanced = []
        assert read_texts(source, tally=source.tally(advanced.append)) == ["one"] * 100_000 + ["two"] * 3
        assert sum(advanced) == source.size == len(content)

    @pytest.mark.parametrize("ending", COMPRESSED)
    def test_a_cut_file_is_damaged(self, ending):
        content = COMPRESSED[ending](os.urandom(4000).hex().encode())
        Path(f"x.txt.{ending}").write_bytes(content[:-9])
        error = refusal(f"x.txt.{ending}")
        assert "cannot read this" in error.what and "truncated" in error.fix

    @pytest.mark.parametrize("ending", [*COMPRESSED, "zip"])
    def test_a_compressed_file_without_its_extension_is_named(self, ending):
        content = COMPRESSED.get(ending, lambda content: zipped(a=content))(b"one\n" * 99)
        Path("x.txt").write_bytes(content)
        error = refusal("x.txt")
        assert error.what.startswith("this is not text but a ") and f".{ending}" in error.fix


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": texts}), stream)
    return stream.getvalue()


class TestArchivesAndFolders:
    def test_members_of_an_archive_are_read_by_their_extensions(self):
        members = {
            "b/c.jsonl": b'{"text": "json"}\n',
            "a.txt": b"plain\n",
            "d.parquet": parquet(["table"]),
            "e.txt.gz": gzip.compress(b"packed\n"),
            "__MACOSX/a.txt": b"no",
            "f.png": PNG,
        }
        Path("x.zip").write_bytes(zipped(**members))
        source = open_files("x.zip")
        assert read_texts(source) == ["plain", "json", "table", "packed"]
        assert source.notes == ("x.zip: 4 files (1 .jsonl, 1 .parquet, 2 .txt); skipped: 1 hidden, 1 no text (.png)",)
        assert [place.file for place, _ in source.rows()][1] == "x.zip:b/c.jsonl"

    def test_archives_are_told_apart_by_their_members(self):
        Path("x.zip").write_bytes(zipped(**{"a.txt": b"one\n", "b.txt": b"two\n"}))
        before = open_files("x.zip").fingerprint
        Path("x.zip").write_bytes(zipped(**{"a.txt": b"one\n", "b.txt": b"other\n"}))
        assert open_files("x.zip").fingerprint != before
        Path("x.zip").write_bytes(b"PK\x03\x04 and no more")
        assert "zip" in refusal("x.zip").what

    def test_a_folder_is_read_with_all_below_it(self):
        Path("d/e/.git").mkdir(parents=True)
        Path("d/a.txt").write_text("one\n")
        Path("d/e/b.md").write_text("# two\n")
        Path("d/e/LICENSE").write_text("three\n")
        Path("d/e/.git/config").write_text("hidden\n")
        Path("d/.hidden").write_text("hidden\n")
        Path("d/f.png").write_bytes(PNG)
        Path("d/g.zip").write_bytes(zipped(**{"h.txt": b"four\n"}))
        Path("d/e/up").symlink_to("..")
        source = open_files("d")
        tally = source.tally()
        assert sorted(read_texts(source, tally=tally)) == ["# two", "four", "one", "three"]
        assert source.notes == ("d: 4 files (1 .md, 2 .txt, 1 no extension); skipped: 2 hidden, 1 no text (.png)",)
        assert tally.notes() == ["d/e/LICENSE, d/e/b.md: read as plain text, each line a document"]
        assert read_texts(open_files("d/*")) == ["one", "four"]
        assert open_files("d/*").notes == ("d/*: 2 files (2 .txt); skipped: 1 folders, 1 no text (.png)",)

    def test_a_folder_without_text_is_refused(self):
        Path("d").mkdir()
        Path("d/f.png").write_bytes(PNG)
        error = refusal("d")
        assert error.what == "no text file in 'd'; skipped: 1 no text (.png)"

    def test_a_file_that_is_no_text_is_named(self):
        Path("f.png").write_bytes(PNG)
        assert refusal("f.png").what == "this is not text but a PNG image: f.png"
        Path("f.bin").write_bytes(bytes(range(32)) * 9)
        assert "binary file" in refusal("f.bin").what
        Path("f.tar").write_bytes(b"a.txt" + bytes(252) + b"ustar\0" + bytes(300))
        assert "unpack it" in refusal("f.tar").fix

    @pytest.mark.parametrize("name", ["x.md", "x.py", "x.html", "x.xml", "x.tex", "x.weird", "x"])
    def test_other_extensions_are_plain_text(self, name):
        Path(name).write_text("one\ntwo\n")
        assert read_texts(open_files(name)) == ["one", "two"]
        assert read_texts(open_files(name, document_separator="")) == ["one\ntwo\n"]

    def test_the_format_can_be_set(self):
        Path("x.dat").write_text('{"text": "one"}\n')
        assert read_texts(open_files("x.dat", file_format="json")) == ["one"]
        with pytest.raises(UserError, match=r"data\.file_format=xml is unknown"):
            data_options(file_format="xml")


class TestSavedDatasets:
    def test_the_splits_of_a_saved_dict(self):
        splits = {"train": Dataset.from_dict({"text": ["a", "b"]}), "test": Dataset.from_dict({"text": ["c"]})}
        DatasetDict(splits).save_to_disk("saved", num_shards={"train": 2, "test": 1})
        options = {"path": "saved", "splits": {"train": "train", "validation": "test"}, "cache_dir": "cache"}
        for split, texts in (("train", ["a", "b"]), ("validation", ["c"])):
            assert read_texts(open_source(data_options(**options), split)) == texts
        with pytest.raises(UserError, match="it has train, test"):
            open_source(data_options(**{**options, "splits": {"train": "tran"}}), "train")
        assert "data.path=saved" in refusal("saved").fix

    def test_one_saved_dataset_is_like_a_file(self):
        Dataset.from_dict({"text": [str(number) for number in range(12)]}).save_to_disk("saved", num_shards=11)
        config = data_options(path="saved", cache_dir="cache")
        assert read_texts(open_source(config, "train")) == [str(number) for number in range(12)]
        assert held_out_share(config) == 0.05 and open_source(config, "validation") is None
        assert read_texts(open_files("saved")) == [str(number) for number in range(12)]
        next(Path("saved").glob("*.arrow")).unlink()
        assert "is missing" in refusal("saved").what
        Path("saved/state.json").write_text("{")
        assert "damaged" in refusal("saved").what


class TestStandardInput:
    def pipe(self, monkeypatch, content: bytes, is_terminal: bool = False):
        stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: is_terminal)
        monkeypatch.setattr(standard_input.sys, "stdin", stream)

    @pytest.mark.parametrize(
        ("content", "options"),
        [
            (b"one\ntwo\n", {}),
            (b'{"text": "one"}\n{"text": "two"}\n', {}),
            (b'[{"text": "one"}, {"text": "two"}]', {}),
            (b"text;n\none;1\ntwo;2\n", {"file_format": "csv"}),
        ],
    )
    def test_it_is_read_again_and_again(self, monkeypatch, content, options):
        self.pipe(monkeypatch, content)
        for _ in range(2):
            assert read_texts(open_files("-", **options)) == ["one", "two"]
        copy = Path(os.environ[standard_input._COPY])
        standard_input._remove(copy, os.getpid())
        assert not copy.exists()

    def test_a_terminal_is_refused(self, monkeypatch):
        self.pipe(monkeypatch, b"", is_terminal=True)
        assert refusal("-").what == "nothing is piped into standard input"


class TestJson:
    @pytest.mark.parametrize("indent", [None, 1])
    @pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"version": 3, "tags": [1], "data": rows}])
    def test_documents(self, indent, wrap):
        rows = [{"text": "one"}, {"text": "two\nlines"}, {"text": None}]
        Path("x.json").write_text(json.dumps(wrap(rows), indent=indent))
        source = open_files("x.json")
        assert [row for _, row in source.rows()] == rows
        assert [place.row for place, _ in source.rows(["text"])] == [1, 2, 3]

    def test_objects_one_after_another(self):
        Path("x.json").write_text('{"text":\n"one"}\n{"text": "two"} {"text": "three"}')
        assert read_texts(open_files("x.json")) == ["one", "two", "three"]

    def test_a_row_with_a_list_is_no_document(self):
        chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
        for name, options in (("x.jsonl", {}), ("x.json", {"format": "chat", "examples": "lines"})):
            Path(name).write_text(json.dumps(chat))
            assert [row for _, row in open_files(name, **options).rows()] == [chat]

    def test_what_is_wrong_is_named(self):
        for content, what in (
            ('{"a": [{"text": "1"}], "b": [{"text": "2"}]}', "several lists of objects: a, b"),
            ('[{"text": "1"},\n 3]', "not a JSON object but a int"),
            ('[{"text": "1"},\n {"text"', "malformed JSON"),
        ):
            Path("x.json").write_text(content)
            error = refusal("x.json")
            assert what in error.what and error.where.startswith("x.json")
        Path("x.json").write_text('[{"text": "1"}, 3, {"text": "2"}]')
        assert read_texts(open_files("x.json", on_error="skip")) == ["1", "2"]
