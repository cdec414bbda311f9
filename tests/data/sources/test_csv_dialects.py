"""csv and tsv files as people write them, compared with Python's csv module."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmft.data.config import CsvConfig
from lmft.data.sources.dialect import Dialect, find_dialect
from lmft.errors import UserError
from tests.helpers.sources import open_files, read_texts

FOUND = CsvConfig(delimiter=None, header=None, quote=None, escape=None)
ANYWHERE = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
TEXT = st.text(st.sampled_from("ab é後,;\t|'\"\\\n.1"), min_size=1, max_size=12)


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(name="x.csv", **options):
    return [row for _, row in open_files(name, **options).rows()]


def test_a_quote_in_a_tsv_file_is_a_character():
    Path("x.tsv").write_text('text\tlabel\n"open\t0\n"\t1\nsay "so"\t2\n"whole"\t3\n')
    assert [row["text"] for row in rows_of("x.tsv")] == ['"open', '"', 'say "so"', '"whole"']
    quoted = 'text\tlabel\n"a\tb"\t1\n'
    Path("y.tsv").write_text(quoted)
    with pytest.raises(UserError, match="3 fields under a header of 2") as error:
        rows_of("y.tsv")
    assert "data.csv.quote" in error.value.fix
    assert rows_of("y.tsv", csv={"quote": '"'}) == [{"text": "a\tb", "label": "1"}]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_delimiter_and_header_are_found_and_told(delimiter, header):
    rows = [["3", "It is here, there; and so on."], ["4", "No | one came."], ["5", 'He said "no".']]
    lines = io.StringIO(newline="")
    csv.writer(lines, delimiter=delimiter).writerows([["id", "text"]] * header + rows)
    Path("x.csv").write_text(lines.getvalue())
    source = open_files("x.csv")
    name = "text" if header else "column2"
    tally = source.tally()
    assert read_texts(source, name, tally=tally) == [text for _, text in rows]
    assert ("a header" if header else "no header") in tally.notes()[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,text\n1,'one, two'\n2,'three'\n", Dialect(",", "'", None)),
        ("id,text\n1,'one'\n2,'two'\n", Dialect(",", "'", None)),
        ("id,text\n1,'tis one\n2,that's 'two\n", Dialect(",", '"', None)),
        ('id,text\n1,"say \\"so\\", she said"\n2,"a"\n', Dialect(",", '"', "\\")),
        ('id;text\n1;"a;b"\n2;1,5\n', Dialect(";", '"', None)),
        (",text\n0,a\n1,b\n", Dialect(",", '"', None)),
        ("text\nHello, world\nHow; are, you\n", Dialect(",", '"', None)),
        ("a" * 70 + ",b\nc,d\n", Dialect(",", '"', None, has_header=False)),
        ("a,a\nc,d\n", Dialect(",", '"', None, has_header=False)),
    ],
)
def test_dialects(content, expected):
    assert find_dialect(content, is_tsv=False, options=FOUND, names=["body"]) == expected


def test_what_is_set_is_not_guessed():
    options = CsvConfig(delimiter="\\t", header=True, quote="none", escape="none")
    assert find_dialect("3,4\n", False, options, []) == Dialect("\t", None, None)
    options = CsvConfig(delimiter=";", header=None, quote="'", escape="\\")
    assert find_dialect("3;4\n", True, options, []) == Dialect(";", "'", "\\", has_header=False)
    for wrong in ({"delimiter": "ab"}, {"quote": "double"}, {"escape": "\\\\"}, {"delimiter": "none"}):
        with pytest.raises(UserError, match="is not one character"):
            CsvConfig(**{"delimiter": None, "header": None, "quote": None, "escape": None, **wrong})


def test_a_wanted_column_tells_that_the_first_row_is_a_header():
    Path("x.csv").write_text("2019,2020\none,two\n")
    assert rows_of() == [{"column1": "2019", "column2": "2020"}, {"column1": "one", "column2": "two"}]
    assert read_texts(open_files("x.csv", text_column="2020"), "2020") == ["two"]


def test_a_column_that_is_not_there_or_twice():
    Path("x.csv").write_text("This is nice,1\nThat is not,0\n")
    with pytest.raises(UserError, match="no column 'text'") as error:
        read_texts(open_files("x.csv"))
    assert "data.csv.header=true" in error.value.fix and "column1, column2" in error.value.fix
    Path("x.csv").write_text("text,text\na,b\n")
    with pytest.raises(UserError, match="2 columns are named 'text'"):
        read_texts(open_files("x.csv"))


def test_skipping_leaves_out_single_rows_and_names_them():
    Path("x.csv").write_text('text,id\nfine,1\n"open,2\nalso fine,3\none too many,4,5\n"a"b,6\n"last\nline",7\n')
    source = open_files("x.csv", on_error="skip")
    tally = source.tally()
    assert read_texts(source, tally=tally) == ["fine", "also fine", "last\nline"]
    assert tally.counts == {"skipped": 3}
    said = tally.warnings()[0]
    assert "cannot be used: 3 (" in said and "x.csv, row 5: 3 fields under a header of 2" in said
    assert "x.csv: rows that hold line breaks: 1" in tally.notes()


def _check_against_csv(texts, delimiter, quotechar, line_end, escaped, encoding):
    """A file written by Python's csv module, with its dialect set, is read as that module reads it."""
    lines = io.StringIO(newline="")
    options = {"delimiter": delimiter, "quotechar": quotechar, "lineterminator": line_end}
    if escaped:
        options |= {"doublequote": False, "escapechar": "\\"}
    csv.writer(lines, quoting=csv.QUOTE_ALL, **options).writerows([["text", "n"], *([t, "1"] for t in texts)])
    Path("x.csv").write_bytes(lines.getvalue().encode(encoding, "replace"))
    given = {"delimiter": delimiter, "quote": quotechar, "escape": "\\" if escaped else "none", "header": True}
    source = open_files("x.csv", csv=given, encoding=encoding)
    expected = [text.encode(encoding, "replace").decode(encoding) for text in texts]
    assert [row["text"] for _, row in source.rows()] == [text.replace("\r\n", "\n") for text in expected]


def _check_found(texts, delimiter):
    """The dialect of texts written by Python's csv module is found."""
    lines = io.StringIO(newline="")
    rows = [[str(number), text, "end"] for number, text in enumerate(texts)]
    csv.writer(lines, delimiter=delimiter, quoting=csv.QUOTE_NONNUMERIC).writerows([["id", "text", "z"], *rows])
    Path("x.csv").write_text(lines.getvalue(), newline="")
    assert [row["text"] for _, row in open_files("x.csv").rows()] == texts


WRITTEN = given(
    texts=st.lists(TEXT, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    quotechar=st.sampled_from("\"'"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    escaped=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-16", "gb18030", "shift_jis"]),
)
FINDABLE = given(texts=st.lists(TEXT, min_size=1, max_size=6), delimiter=st.sampled_from(",;\t|"))


@settings(max_examples=25, **ANYWHERE)
@WRITTEN
def test_files_of_the_csv_module(texts, delimiter, quotechar, line_end, escaped, encoding):
    _check_against_csv(texts, delimiter, quotechar, line_end, escaped, encoding)


@settings(max_examples=25, **ANYWHERE)
@FINDABLE
def test_dialects_of_the_csv_module_are_found(texts, delimiter):
    _check_found(texts, delimiter)


@pytest.mark.parametrize("texts", [["''", "''"], ["'a'"], ["''", "','"]])
def test_texts_between_single_quotes_are_texts_in_a_file_with_double_quotes(texts):
    _check_found(texts, ",")


@pytest.mark.slow
@settings(max_examples=2000, **ANYWHERE)
@WRITTEN
def test_many_files_of_the_csv_module(texts, delimiter, quotechar, line_end, escaped, encoding):
    _check_against_csv(texts, delimiter, quotechar, line_end, escaped, encoding)


@pytest.mark.slow
@settings(max_examples=2000, **ANYWHERE)
@FINDABLE
def test_many_dialects_of_the_csv_module_are_found(texts, delimiter):
    _check_found(texts, delimiter)
