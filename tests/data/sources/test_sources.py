import codecs
import csv
import gzip
import io
import json
import os
import re
from collections import Counter
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmft.data.config import DataConfig
from lmft.data.sources import content_hash, csv_files, files, opening, table_files
from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import Place
from lmft.data.sources.source import held_out_share, open_source
from lmft.errors import UserError
from tests.helpers.options import data_options

TEXTS = ["The first.", "Ein zweiter: größer, schöner.", "a \u2028 b \u0085 c", "後で", 'She said "no", twice.']
SPLITS = {"train": "train", "validation": "validation"}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config(**values) -> DataConfig:
    return data_options(**{"splits": SPLITS, "cache_dir": "cache", **values})


def source_of(split="train", **values):
    source = open_source(config(**values), split)
    assert source is not None
    return source


def read(source, *columns, tally=None) -> list[str]:
    return list(documents(source, RowText(columns or ("text",)), tally or source.tally()))


def texts_of(*columns, **values) -> list[str]:
    return read(source_of(**values), *columns)


def counts_of(source) -> Counter:
    tally = source.tally()
    read(source, tally=tally)
    return tally.counts


def error_of(call, *arguments, **values) -> UserError:
    with pytest.raises(UserError) as raised:
        call(*arguments, **values)
    lines = str(raised.value).splitlines()
    assert len(lines) <= 3
    assert all(lines)
    return raised.value


def content_of(form: str, texts: list) -> bytes:
    """A file of that format with columns `number` and `text` (txt: only the text)."""
    table = pa.table({"number": list(range(len(texts))), "text": pa.array(texts, pa.string())})
    stream = io.BytesIO()
    if form == "txt":
        return "".join(f"{text}\n" for text in texts).encode()
    if form in ("jsonl", "json"):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()
    if form == "csv":
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([["number", "text"], *enumerate(texts)])
        return lines.getvalue().encode()
    if form == "tsv":
        return "".join(f"{number}\t{text}\n" for number, text in [("number", "text"), *enumerate(texts)]).encode()
    if form == "parquet":
        pq.write_table(table, stream, row_group_size=3)
    elif form == "arrow":
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table, 2)
    elif form == "arrow file":
        with pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table, 2)
    return stream.getvalue()


def write(name: str, texts: list = TEXTS, form: str | None = None) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content_of(form or name.removesuffix(".gz").rpartition(".")[2], texts)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


TEXT_FORMATS = ["txt", "jsonl", "json", "csv", "tsv"]


class TestFormats:
    @pytest.mark.parametrize(
        "name", ["x.parquet", "x.arrow", *(f"x.{form}{gz}" for form in TEXT_FORMATS for gz in ("", ".gz"))]
    )
    def test_every_format_gives_the_same_documents_again_and_again(self, name):
        write(name)
        source = source_of(train=name)
        for _ in range(2):
            assert read(source) == TEXTS
        assert source.size == Path(name).stat().st_size
        assert source.name == name

    def test_both_arrow_formats_are_told_apart(self):
        write("x.arrow", form="arrow file")
        assert texts_of(train="x.arrow") == TEXTS

    @pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.arrow"])
    def test_rows_have_places_and_all_columns(self, name):
        write(name)
        rows = list(source_of(train=name).rows())
        first = 2 if name == "x.csv" else 1  # the header is line 1
        assert [place for place, _ in rows] == [Place(name, first + i) for i in range(len(TEXTS))]
        assert [row["text"] for _, row in rows] == TEXTS
        assert [int(row["number"]) for _, row in rows] == list(range(len(TEXTS)))
        assert str(rows[0][0]) == f"{name}, row {first}"
        assert [row for _, row in source_of(train=name).rows(["text"])] == [{"text": text} for text in TEXTS]

    def test_nested_columns(self):
        messages = [{"role": "user", "content": "Hi"}]
        pq.write_table(pa.table({"messages": [messages]}), "x.parquet")
        Path("x.jsonl").write_text(json.dumps({"messages": messages}))
        for name in ("x.parquet", "x.jsonl"):
            assert [row for _, row in source_of(train=name).rows()] == [{"messages": messages}]

    @pytest.mark.parametrize("form", ["txt", "jsonl", "csv", "parquet", "arrow", "arrow file"])
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data(), block=st.integers(8, 40), batch=st.integers(1, 3))
    def test_any_text_survives_block_and_batch_borders(self, form, data, block, batch):
        characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff\r" + "\n" * (form == "txt"))
        texts = data.draw(st.lists(st.text(characters), max_size=9))
        path = write(f"x.{form.split()[0]}", texts, form)
        advanced = []
        borders = [patch.object(module, "BATCH", batch) for module in (csv_files, table_files)]
        with patch.object(opening, "BLOCK", block), borders[0], borders[1]:
            source = source_of(train=str(path))
            tally = source.tally(advanced.append)
            counted = tally.counts
            assert read(source, tally=tally) == [t for t in texts if t.strip()]
            assert [row["text"] for _, row in source.rows()] == texts
        assert counted["blank"] == sum(not text.strip() for text in texts)
        assert sum(advanced) <= source.size
        if form in ("txt", "jsonl", "csv"):
            assert sum(advanced) == source.size

    def test_csv_records_over_several_lines(self):
        Path("x.csv").write_bytes(b'id,text\r\n1,"one\r\ntwo"\r\n\r\n2,"say ""so"""\r\n')
        rows = list(source_of(train="x.csv").rows(["text"]))
        assert rows == [(Place("x.csv", 2), {"text": "one\ntwo"}), (Place("x.csv", 5), {"text": 'say "so"'})]

    def test_csv_field_of_a_megabyte(self):
        write("x.csv", ["a, b" * 300_000])
        assert [len(text) for text in texts_of(train="x.csv")] == [1_200_000]

    def test_extensions_in_capitals(self):
        write("X.TXT", form="txt")
        assert texts_of(train="X.TXT") == TEXTS


class TestLinesAndSeparators:
    def test_only_newlines_end_lines(self):
        Path("x.txt").write_bytes("a\u2028b\x0bc\x0cd\x85e\r\nf\rg\n\nlast".encode())
        source = source_of(train="x.txt")
        assert [(place.row, row["text"]) for place, row in source.rows()] == [
            (1, "a\u2028b\x0bc\x0cd\x85e"), (2, "f\rg"), (3, ""), (4, "last"),
        ]  # fmt: skip

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        content=st.lists(st.sampled_from(["a", "é", "\n", "\r\n", "\r", "=", "\n\n"]), max_size=40).map("".join),
        separator=st.sampled_from(["\n\n", "=", "==", "\n=\n", "\r\n\r\n", "=\n="]),
        block=st.integers(1, 7),
    )
    def test_separators_across_blocks(self, content, separator, block):
        Path("x.txt").write_bytes(content.encode())
        if "\n" not in content:
            content = content.replace("\r", "\n")  # as on old Macs
        pieces = content.replace("\r\n", "\n").split(separator.replace("\r\n", "\n"))
        starts = [1 + len("".join(f"{p}{separator}" for p in pieces[:i]).split("\n")) - 1 for i in range(len(pieces))]
        expected = list(zip(starts, pieces, strict=True))
        with patch.object(opening, "BLOCK", block):
            source = source_of(train="x.txt", document_separator=separator)
            found = [(place.row, row["text"]) for place, row in source.rows()]
        assert found == (expected if pieces[-1] else expected[:-1])

    @pytest.mark.parametrize("separator", ["\n\n", "\\n\\n", "\r\n\r\n"])
    def test_blank_lines_part_documents(self, separator):
        Path("x.txt").write_bytes(b"one\r\nstill one\r\n\r\ntwo\n\nthree")
        assert texts_of(train="x.txt", document_separator=separator) == ["one\nstill one", "two", "three"]

    def test_whole_files(self):
        Path("a.txt").write_bytes(b"one\n\ntwo\r\n")
        Path("b.txt").write_bytes(b"three")
        assert texts_of(train="*.txt", document_separator="") == ["one\n\ntwo\n", "three"]


class TestCleaning:
    def test_what_is_dropped_and_mended_is_counted(self):
        texts = [None, "", " \n\t", "\ufeffmark", "n\0u\0l", "\0", "\ufeff\0both", "in\ufeffside", "plain", None]
        write("x.parquet", texts)
        source = source_of(train="x.parquet")
        cleaned = counts_of(source)
        assert read(source) == ["mark", "nul", "both", "in\ufeffside", "plain"]
        assert cleaned == {"none": 2, "blank": 3, "nul": 3, "bom": 2}

    def test_clean_text_leaves_the_counter_empty(self):
        write("x.txt")
        assert counts_of(source_of(train="x.txt")) == Counter()

    def test_halves_of_surrogate_pairs_are_replaced(self):
        Path("x.jsonl").write_text('{"text": "a\\ud83d\\ude00b"}\n{"text": "a\\ud83db"}\n')
        source = source_of(train="x.jsonl")
        assert read(source) == ["a😀b", "a\ufffdb"]
        assert counts_of(source) == {"surrogate": 1}

    @pytest.mark.parametrize("name", ["x.txt", "x.jsonl", "x.csv"])
    def test_byte_order_mark_of_a_file(self, name):
        path = write(name)
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
        for encoding in ("utf-8", "utf-8-sig"):
            source = source_of(train=name, encoding=encoding)
            assert read(source) == TEXTS
            assert counts_of(source) == ({"bom": 1} if name == "x.txt" else {})


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "shift_jis", "cp1252", "latin-1"])
    @pytest.mark.parametrize("form", ["txt", "csv", "jsonl"])
    def test_other_encodings(self, encoding, form):
        texts = ["one", "後で\u3000二" if encoding.startswith(("utf", "shift")) else "größer", "three"]
        path = write(f"x.{form}", texts)
        path.write_text(path.read_text(), encoding=encoding, newline="")
        with patch.object(opening, "BLOCK", 8):
            assert texts_of(train=str(path), encoding=encoding) == texts

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        before=st.lists(st.sampled_from(["a", "é", "後", "\n", "\r\n", "😀"]), max_size=40).map("".join),
        bad=st.sampled_from([b"\xff", b"\xe9 ", b"\xe5\xbe\n", b"\xf0\x9f"]),
        after=st.sampled_from([b"", b"x\nmore"]),
        block=st.integers(1, 50),
        gz=st.booleans(),
    )
    def test_place_of_a_byte_that_is_not_utf_8(self, before, bad, after, block, gz):
        name = "x.txt.gz" if gz else "x.txt"
        content = before.encode() + bad + after
        Path(name).write_bytes(gzip.compress(content) if gz else content)
        with patch.object(opening, "BLOCK", block):
            error = error_of(texts_of, train=name)
        line = before.encode().rpartition(b"\n")
        assert error.where == f"{name}, line {before.count(chr(10)) + 1}, byte {len(line[2]) + 1}"
        assert error.what == f"not utf-8 text: byte 0x{bad[0]:02x}"
        assert "data.encoding=latin-1" in error.fix or "data.encoding_errors=replace" in error.fix

    def test_rows_before_the_bad_byte_are_not_silently_taken_for_all(self):
        Path("x.jsonl").write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n')
        assert error_of(texts_of, train="x.jsonl").where == "x.jsonl, line 2, byte 14"
        assert texts_of(train="x.jsonl", encoding="latin-1") == ["one", "café"]

    def test_utf_16_is_guessed(self):
        Path("x.txt").write_text("one", encoding="utf-16")
        assert "data.encoding=utf-16" in error_of(texts_of, train="x.txt").fix

    @pytest.mark.parametrize("encoding", ["utf8x", "hex", "latin_l"])
    def test_unknown_encoding(self, encoding):
        write("x.txt")
        error = error_of(source_of, train="x.txt", encoding=encoding)
        assert f"unknown encoding '{encoding}'" in error.what
        assert error.where == f"data.encoding={encoding}"
        assert encoding != "utf8x" or "did you mean" in error.what


class TestMalformed:
    @pytest.mark.parametrize("content", ["{text: 1}", "[1]", '"text"', "{", "[" * 200_000])
    def test_json(self, content):
        Path("x.jsonl").write_text(f'{{"text": "fine"}}\n\n{content}\n')
        error = error_of(texts_of, train="x.jsonl")
        assert error.where == "x.jsonl, row 3"
        assert "JSON" in error.what

    @pytest.mark.parametrize(
        ("content", "where", "what"),
        [
            ("text\n\nfine\na,b\n", "x.csv, row 4", "2 fields under a header of 1"),
            ('text,id\n"open,1\n', "x.csv, line 2", "malformed csv"),
            ('text,id\n"a"b,1\n', "x.csv, line 2", "malformed csv"),
        ],
    )
    def test_csv(self, content, where, what):
        Path("x.csv").write_text(content)
        error = error_of(texts_of, train="x.csv")
        assert error.where == where
        assert what in error.what

    @pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet", "x.arrow"])
    def test_missing_column(self, name):
        write(name)
        error = error_of(texts_of, "txet", train=name)
        assert error.what == "no column 'txet' (did you mean 'text'?)"
        assert "number, text" in error.fix
        assert name in error.where

    def test_column_missing_further_down(self):
        Path("x.jsonl").write_text('{"text": "a"}\n{"body": "b"}\n')
        assert error_of(texts_of, train="x.jsonl").where == "x.jsonl, row 2"

    def test_txt_has_one_column(self):
        write("x.txt")
        assert "text" in error_of(texts_of, "body", train="x.txt").fix

    @pytest.mark.parametrize("value", [3, {"a": 1}, True])
    def test_value_that_is_not_text(self, value):
        rows = [{"text": "fine"}] * 3 + [{"text": value}]
        Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        error = error_of(texts_of, train="x.jsonl")
        assert error.where == "x.jsonl, row 4"
        assert f"holds a {type(value).__name__}, not text" in error.what

    def test_numbers_in_parquet(self):
        pq.write_table(pa.table({"text": [1, 2]}), "x.parquet")
        assert error_of(texts_of, train="x.parquet").where == "x.parquet, row 1"

    @pytest.mark.parametrize("name", ["x.txt.gz", "x.parquet", "x.arrow", "x.jsonl.gz"])
    @pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
    def test_damaged_files(self, name, damage):
        path = write(name, [os.urandom(50).hex() for _ in range(100)])
        content = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:20] + bytes(byte ^ 255 for byte in content[20:middle]) + content[middle:]
        damaged = {"cut": content[:middle], "flipped": flipped, "empty": b"", "other": b"plain text, no such thing"}
        path.write_bytes(damaged[damage])
        if damage == "empty" and name.endswith(".gz"):  # gzip of nothing and nothing are the same to gzip
            assert texts_of(train=name) == []
        else:
            error = error_of(texts_of, train=name)
            assert error.where == name
            assert "damaged" in error.fix

    def test_text_in_parquet_that_is_not_utf_8(self):
        binary = pa.array([b"caf\xe9"], pa.binary())
        pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 1, binary.buffers())}), "x.parquet")
        assert error_of(texts_of, train="x.parquet").where == "x.parquet"


class TestWhichFiles:
    def test_globs_and_lists_are_sorted_and_each_file_is_taken_once(self):
        for name in ("d/b.txt", "d/a.txt", "d/e/c.jsonl", "f[1].txt"):
            write(name, [name])
        assert texts_of(train="d/*.txt") == ["d/a.txt", "d/b.txt"]
        assert texts_of(train=["d/b.txt", "d/*.txt", "./d/b.txt"]) == ["d/a.txt", "d/b.txt"]
        assert texts_of(train="d/**/*.*") == ["d/a.txt", "d/b.txt", "d/e/c.jsonl"]
        assert texts_of(train="f[1].txt") == ["f[1].txt"]
        assert source_of(train="d/**/*.*").name == "d/a.txt and 2 more"

    def test_a_tilde_stands_for_the_home_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        write("x.txt")
        assert texts_of(train="~/x.txt") == texts_of(train="~/*.txt") == TEXTS

    @pytest.mark.parametrize(
        ("values", "what"),
        [
            ({"train": "revues.txt"}, "no such file or folder: revues.txt (did you mean 'reviews.txt'?)"),
            ({"train": "d/*.jsonl"}, "no file matches 'd/*.jsonl'"),
            ({"train": "empty"}, "no text file in 'empty'"),
            ({"train": "x.pdf"}, "this is not text but a PDF document: x.pdf"),
            ({"train": "x.parquet.gz"}, "a parquet file is not read through gzip: x.parquet.gz"),
            ({"path": "./nothing"}, "no such file or folder: nothing"),
            ({"path": "~no-such-user/x"}, "no such file or folder: ~no-such-user/x"),
            ({"path": "a/b/c"}, "no such file or folder: a/b/c"),
            ({"path": "revews.txt"}, "no such file or folder: revews.txt (did you mean 'reviews.txt'?)"),
            ({"path": "lmft:python_dosc"}, "no built-in text 'lmft:python_dosc' (did you mean 'lmft:python_docs'?)"),
            ({}, "no training text is named"),
        ],
    )
    def test_what_does_not_exist(self, values, what):
        for name in ("reviews.txt", "d/x.txt", "x.parquet"):
            write(name)
        Path("x.pdf").write_bytes(b"%PDF-1.7\n\0\n")
        Path("empty").mkdir()
        Path("x.parquet").rename("x.parquet.gz")
        assert error_of(source_of, **values).what == what

    @pytest.mark.parametrize(
        ("name", "split", "is_of"),
        [
            ("train.parquet", "train", True),
            ("train-00000-of-00002.parquet", "train", True),
            ("train_2.txt.gz", "train", True),
            ("training.txt", "train", False),
            ("train2.txt", "train", False),
            ("my_train.txt", "train", False),
            ("train.md", "train", False),
            ("test.txt", "train", False),
            ("test.txt.gz", "test", True),
        ],
    )
    def test_split_of_a_file_in_a_folder(self, name, split, is_of):
        Path("d").mkdir()
        Path("d", name).touch()
        assert [file.label for file in files.of_split(Path("d"), split)] == [f"d/{name}"] * is_of

    def test_a_folders_files_are_its_splits(self):
        write("d/train-1.txt", ["one"])
        write("d/train-0.txt", ["zero"])
        write("d/test.jsonl", ["tested"])
        splits = {"train": "train", "validation": "test"}
        assert texts_of(path="d", splits=splits) == ["zero", "one"]
        assert texts_of(split="validation", path="d", splits=splits) == ["tested"]
        assert source_of("validation", path="d", splits=splits).name == "d/test.jsonl"

    def test_files_take_the_place_of_a_split(self):
        for name in ("d/train.txt", "d/validation.txt", "x.txt"):
            write(name, [name])
        assert texts_of(path="d", train="x.txt") == ["x.txt"]
        assert texts_of(split="validation", path="d", train="x.txt") == ["d/validation.txt"]
        assert texts_of(split="validation", path="d", validation="x.txt") == ["x.txt"]

    def test_a_split_that_is_not_there(self):
        write("d/train.txt")
        write("d/test.txt")
        error = error_of(source_of, "validation", path="d")
        assert error.what == "no split 'validation' in 'd': it has test, train"
        assert "data.validation_fraction" in error.fix
        error = error_of(source_of, path="d", splits={"train": "tran"})
        assert error.what == "no split 'tran' in 'd' (did you mean 'train'?): it has test, train"
        Path("empty").mkdir()
        assert "it has no file that ends in .txt" in error_of(source_of, path="empty").what

    def test_a_split_in_several_formats_is_refused(self):
        write("d/train.txt")
        write("d/train.parquet")
        assert "parquet, txt" in error_of(source_of, path="d").what

    def test_path_of_one_file(self):
        write("x.txt")
        assert texts_of(path="x.txt") == TEXTS
        assert open_source(config(path="x.txt"), "validation") is None
        assert held_out_share(config(path="x.txt")) == 0.05

    def test_validation_from_the_training_documents(self):
        write("d/train.txt")
        write("d/validation.txt", ["held out"])
        for fraction in (0, 0.05):
            assert open_source(config(path="d", validation_fraction=fraction), "validation") is None
            assert open_source(config(train="d/train.txt", validation_fraction=fraction), "validation") is None
            assert open_source(config(path="lmft:python_docs", validation_fraction=fraction), "validation") is None
        both = {"validation": "d/validation.txt", "validation_fraction": 0.05}
        assert texts_of(split="validation", path="d", **both) == ["held out"]
        assert open_source(config(train="d/train.txt"), "validation") is None
        assert held_out_share(config(train="d/train.txt")) == 0.05
        assert held_out_share(config(path="d")) == held_out_share(config(**both)) == 0
        write("alone/train.txt")
        assert held_out_share(config(path="alone")) == 0.05
        assert "it has train" in error_of(source_of, "validation", path="lmft:python_docs").what


class TestFingerprint:
    def test_names_and_folders_do_not_matter_but_order_does(self):
        write("a.txt", ["one"])
        write("b.txt", ["two"])
        before = source_of(train="*.txt").fingerprint
        Path("d").mkdir()
        Path("a.txt").rename("d/x.txt")
        Path("b.txt").rename("d/y.txt")
        assert source_of(train="d/*.txt").fingerprint == before
        Path("d/x.txt").rename("d/z.txt")
        assert source_of(train="d/*.txt").fingerprint != before
        assert source_of(train="d/y.txt").fingerprint != before

    def test_an_edit_changes_it_even_where_size_and_time_do_not(self):
        path = write("x.txt", ["one"])
        before = source_of(train="x.txt").fingerprint
        status = path.stat()
        write("x.txt", ["two"])
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert source_of(train="x.txt").fingerprint != before

    def test_how_it_is_read_changes_it(self):
        write("x.txt")
        write("x.parquet")
        seen = {
            source_of(train="x.txt", **values).fingerprint
            for values in ({}, {"encoding": "latin-1"}, {"document_separator": ""}, {"document_separator": "\n\n"})
        }
        assert len(seen) == 4
        assert source_of(train="x.txt", encoding="UTF8").fingerprint in seen
        plain, other = source_of(train="x.parquet"), source_of(train="x.parquet", encoding="latin-1")
        assert plain.fingerprint == other.fingerprint
        Path("x.txt").rename("x.csv")
        assert source_of(train="x.csv").fingerprint not in seen

    def test_hashes_are_remembered(self, monkeypatch):
        monkeypatch.setattr(content_hash, "SETTLED", -1)
        write("x.txt")
        write("y.txt", ["y"])
        before = source_of(train="*.txt").fingerprint
        hashed = []
        compute = content_hash._content_hash
        monkeypatch.setattr(content_hash, "_content_hash", lambda file: hashed.append(file.label) or compute(file))
        assert source_of(train="*.txt").fingerprint == before
        assert hashed == []
        write("y.txt", ["changed"])
        assert source_of(train="*.txt").fingerprint != before
        assert hashed == ["y.txt"]
        assert [path.name for path in Path("cache").iterdir()] == [content_hash.MEMO]

    def test_files_just_written_are_not_remembered(self):
        write("x.txt")
        source_of(train="x.txt")
        assert not Path("cache", content_hash.MEMO).exists()

    @pytest.mark.parametrize(
        "memo", ["", "{", "[]", "3", '{"x": 3}', '{"PATH": {"hash": 3}}', '{"PATH": {"hash": "a"}}']
    )
    def test_a_corrupt_memo_is_computed_again(self, memo, monkeypatch):
        monkeypatch.setattr(content_hash, "SETTLED", -1)
        path = write("x.txt")
        right = source_of(train="x.txt", cache_dir="other").fingerprint
        Path("cache").mkdir()
        Path("cache", content_hash.MEMO).write_text(memo.replace("PATH", str(path.resolve())))
        assert source_of(train="x.txt").fingerprint == right
        assert str(path.resolve()) in json.loads(Path("cache", content_hash.MEMO).read_text())

    def test_a_memo_that_cannot_be_written(self, monkeypatch):
        monkeypatch.setattr(content_hash, "SETTLED", -1)
        write("x.txt")
        Path("file").touch()
        assert re.fullmatch("[0-9a-f]{32}", source_of(train="x.txt", cache_dir="file/below").fingerprint)
