"""Nested and joined columns, rows that cannot be used, and the encodings and line ends of their files."""

import json
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lmft.data.sources import opening
from lmft.data.sources.cleaning import documents
from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import value_of
from lmft.data.training_texts import training_text_key
from lmft.errors import UserError
from tests.helpers.options import data_options
from tests.helpers.sources import open_files, read_texts

ANYWHERE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_rows(name: str, rows: list[dict]) -> str:
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), name)
    elif name.endswith(".arrow"):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(name, table.schema) as writer:
            writer.write_table(table)
    else:
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def texts_with(name: str, **options) -> list[str]:
    config = data_options(train=name, **options)
    source = open_files(name, **options)
    return list(documents(source, RowText.from_config(config), source.tally()))


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet", "x.arrow"])
class TestColumns:
    def test_dots_lead_into_columns(self, name):
        rows = [{"t": {"en": "one", "de": {"at": "eins"}}}, {"t": {"en": "two", "de": {"at": "zwei"}}}, {"t": None}]
        write_rows(name, rows)
        assert texts_with(name, text_column="t.en") == ["one", "two"]
        assert texts_with(name, text_column="t.de.at") == ["eins", "zwei"]
        columns = {"source": "t.en", "target": "t.de.at"}
        pairs = open_files(name, format="pairs", columns=columns, examples="lines", too_long="cut")
        found = [row for _, row in pairs.rows()]
        assert [(row["t.en"], row["t.de.at"]) for row in found] == [("one", "eins"), ("two", "zwei"), (None, None)]
        with pytest.raises(UserError, match=r"no column 't.em' \(did you mean 't.en'\?\)"):
            texts_with(name, text_column="t.em")

    def test_a_list_of_texts_is_one_document(self, name):
        write_rows(name, [{"text": ["One.", "Two."], "m": [{"content": "a"}, {"content": "b"}]}])
        assert texts_with(name) == ["One. Two."]
        assert texts_with(name, join={"lists": "\\n"}) == ["One.\nTwo."]
        assert texts_with(name, text_column="m.content") == ["a b"]

    def test_several_columns_are_joined(self, name):
        write_rows(name, [{"a": "title", "b": "body"}, {"a": "", "b": "alone"}, {"a": None, "b": None}])
        assert texts_with(name, text_column=["a", "b"]) == ["title\n\nbody", "alone"]
        assert texts_with(name, text_column=["b", "a"], join={"columns": " | "}) == ["body | title", "alone"]


def test_a_column_with_a_dot_in_its_name_comes_first():
    assert value_of({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    with pytest.raises(KeyError):
        value_of({"a": 3}, "a.b")


def test_joins_are_part_of_the_key_of_a_vocabulary():
    write_rows("x.jsonl", [{"text": ["a", "b"]}])
    keys = {
        training_text_key(data_options(train="x.jsonl", cache_dir="cache", **options))
        for options in ({}, {"join": {"lists": "\n"}}, {"text_column": ["text", "b"]}, {"on_error": "skip"})
    }
    assert len(keys) == 4


def test_every_row_is_a_text_or_counted():
    values = ["a", None, " ", 7, {"a": 1}, ["a", 3]]
    rows = [{"body": "b"}, *({"text": value} for value in values)]
    write_rows("x.jsonl", rows)
    with Path("x.jsonl").open("ab") as file:
        file.write(b'{"text": "caf\xe9"}\nno json\n["a"]\n{"text": "last"}\n')
    source = open_files("x.jsonl", on_error="skip")
    tally = source.tally()
    assert read_texts(source, tally=tally) == ["a", "last"]
    assert tally.counts == {"none": 1, "blank": 1, "skipped": 7}
    assert 2 + tally.counts.total() == len(rows) + 4
    said = tally.warnings()[0]
    assert "x.jsonl, row 9: malformed JSON: Expecting value at character 1" in said and "and 4 more" in said


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.jsonl", "x.json"])
class TestBytes:
    def content(self, name):
        lines = {"x.txt": b"%b\n", "x.csv": b'1,"%b"\n', "x.tsv": b"1\t%b\n", "x.jsonl": b'{"text": "%b"}\n'}
        texts = [b"caf\xc3\xa9", b"caf\xe9 \xe7a", b"fin"]
        if name == "x.json":
            return b'[{"text": "%b"}, {"text": "%b"}, {"text": "%b"}]' % tuple(texts)
        header = {"x.csv": b"n,text\n", "x.tsv": b"n\ttext\n"}.get(name, b"")
        return header + b"".join(lines[name] % text for text in texts)

    def test_bad_bytes_are_replaced_ignored_or_their_row_is_skipped(self, name):
        Path(name).write_bytes(self.content(name))
        for options, texts, counts in (
            ({"encoding_errors": "replace"}, ["café", "caf\ufffd \ufffda", "fin"], {"bytes replaced": 2}),
            ({"encoding_errors": "ignore"}, ["café", "caf a", "fin"], {"bytes ignored": 2}),
            ({"on_error": "skip"}, ["café", "fin"], {"skipped": 1}),
        ):
            source = open_files(name, **options)
            tally = source.tally()
            assert read_texts(source, tally=tally) == texts
            assert tally.counts == counts
        with pytest.raises(UserError, match="not utf-8 text: byte 0xe9"):
            read_texts(open_files(name))

    def test_each_choice_has_its_own_fingerprint(self, name):
        Path(name).write_bytes(self.content(name))
        choices = [{}, {"encoding_errors": "replace"}, {"encoding_errors": "ignore"}, {"on_error": "skip"}]
        if name in ("x.csv", "x.tsv"):
            choices += [{"csv": {"quote": "none"}}, {"csv": {"header": True}}, {"csv": {"delimiter": ";"}}]
        assert len({open_files(name, **choice).fingerprint for choice in choices}) == len(choices)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        ("Il était une fois, à Noël.\n".encode() + b"caf\xe9\n", "the rest is utf-8: data.encoding_errors=replace"),
        ("今天天气很好，我们去公园散步。\n".encode("gb18030") * 9, "data.encoding=gb18030"),
        ("Привет, как дела сегодня? Хорошо.\n".encode("cp1251") * 9, "data.encoding=cp1251"),
        (b"the caf\xe9\n", "data.encoding=latin-1 or cp1252"),
        ("plain text\n".encode("utf-16"), "data.encoding=utf-16"),
        ("plain text\n".encode("utf-32"), "data.encoding=utf-32"),
        ("plain text\n".encode("utf-16-le") * 9, "data.encoding=utf-16-le"),
    ],
)
def test_advice_for_bytes_comes_from_the_file(content, advice):
    Path("x.txt").write_bytes(content)
    with pytest.raises(UserError, match="not utf-8 text") as error:
        read_texts(open_files("x.txt"))
    assert error.value.fix.startswith(advice)


def test_utf_16_without_a_mark_is_told():
    Path("x.txt").write_bytes("text".encode("utf-16-le"))
    with pytest.raises(UserError, match="not utf-16 text") as error:
        read_texts(open_files("x.txt", encoding="utf-16"))
    assert "data.encoding=utf-16-le" in error.value.fix


def test_carriage_returns_alone_end_lines():
    for name, content in (("x.txt", b"one\rtwo\r"), ("x.csv", b"text,n\rone,1\rtwo,2\r"), ("x.tsv", b"text\rone\rtwo")):
        Path(name).write_bytes(content)
        source = open_files(name)
        tally = source.tally()
        assert read_texts(source, tally=tally) == ["one", "two"]
        assert f"{name}: its lines end with CR alone, as on old Macs" in tally.notes()


def test_a_file_of_one_long_line_is_told():
    Path("x.txt").write_text("A sentence. " * 9000)
    source = open_files("x.txt")
    tally = source.tally()
    assert len(read_texts(source, tally=tally)) == 1
    assert "x.txt is one line of 108,000 characters" in tally.warnings()[0]
    source = open_files("x.txt", document_separator=". ")
    tally = source.tally()
    assert len(read_texts(source, tally=tally)) == 9000 and not tally.warnings()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.é", max_size=3), inner, max_size=3),
    max_leaves=6,
)
NESTED = given(
    rows=st.lists(st.fixed_dictionaries({"text": st.text(max_size=9), "meta": JSON_VALUES}), min_size=1, max_size=5),
    layout=st.sampled_from(["lines", "array", "object", "pretty", "stream"]),
    is_ascii=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
    block=st.integers(8, 60),
)


def _check_against_json(rows, layout, is_ascii, encoding, block):
    """Rows written by Python's json module in any layout are read as that module reads them."""
    dumped = {"ensure_ascii": is_ascii}
    written = {
        "lines": "".join(json.dumps(row, **dumped) + "\r\n" for row in rows),
        "array": json.dumps(rows, **dumped),
        "object": json.dumps({"n": len(rows), "rows": rows}, indent=1, **dumped),
        "pretty": json.dumps(rows, indent=2, **dumped),
        "stream": "\n".join(json.dumps(row, indent=1, **dumped) for row in rows),
    }[layout]
    Path("x.json").write_bytes(written.encode(encoding, "surrogatepass"))
    with patch.object(opening, "BLOCK", block):
        assert [row for _, row in open_files("x.json", encoding=encoding).rows()] == rows


@settings(max_examples=30, **ANYWHERE)
@NESTED
def test_layouts_of_the_json_module(rows, layout, is_ascii, encoding, block):
    _check_against_json(rows, layout, is_ascii, encoding, block)


@pytest.mark.slow
@settings(max_examples=3000, **ANYWHERE)
@NESTED
def test_many_layouts_of_the_json_module(rows, layout, is_ascii, encoding, block):
    _check_against_json(rows, layout, is_ascii, encoding, block)


BYTES = given(
    lines=st.lists(st.binary(max_size=9).map(lambda line: line.translate(None, b"\r\n")), max_size=6),
    errors=st.sampled_from(["replace", "ignore"]),
    encoding=st.sampled_from(["utf-8", "ascii", "gb18030", "shift_jis", "cp1252"]),
    block=st.integers(1, 20),
)


def _check_against_decode(lines, errors, encoding, block):
    """Bytes are replaced, or left out, as `bytes.decode` does, and rows are skipped where it fails."""
    content = b"".join(b"text " * 9 + line + b"\n" for line in lines)
    assume(content.count(b"\0") < 2)  # several make a binary file, which is refused
    Path("x.txt").write_bytes(content)
    with patch.object(opening, "BLOCK", block):
        found = [row["text"] for _, row in open_files("x.txt", encoding=encoding, encoding_errors=errors).rows()]
        # A bad byte may take the last line's end with it.
        assert "\n".join(found) == content.decode(encoding, errors).removesuffix("\n")
        source = open_files("x.txt", encoding=encoding, on_error="skip")
        tally = source.tally()
        kept = [text for chunk in source.read(None, tally) for text in chunk.columns["text"]]
    if encoding in ("utf-8", "ascii", "cp1252"):  # in which no bad byte takes the line's end with it
        assert kept == [line.decode(encoding) for line in content.split(b"\n")[:-1] if _decodes(line, encoding)]
        assert len(kept) + tally.counts["skipped"] == len(lines)


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=30, **ANYWHERE)
@BYTES
def test_bytes_are_replaced_as_by_decode(lines, errors, encoding, block):
    _check_against_decode(lines, errors, encoding, block)


@pytest.mark.slow
@settings(max_examples=3000, **ANYWHERE)
@BYTES
def test_many_bytes_are_replaced_as_by_decode(lines, errors, encoding, block):
    _check_against_decode(lines, errors, encoding, block)
