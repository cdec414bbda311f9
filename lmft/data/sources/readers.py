"""Readers of files, one per format. Each streams rows, and names the place of what it cannot read."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from lmft.data.sources.decoding import BLOCK, split, texts, without_bom
from lmft.data.sources.files import File, unreadable
from lmft.errors import UserError, did_you_mean

if TYPE_CHECKING:
    import pyarrow

BATCH = 512  # rows per chunk of csv, parquet and arrow files
MAX_FIELD = 1 << 27  # characters of a csv field: limits the text that an unclosed quote takes in


class Place(NamedTuple):
    """File and row; `row` counts from 1. In txt, jsonl and csv files it is the line where the row
    begins.
    """

    file: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}"


class Chunk(NamedTuple):
    """Several hundred or thousand rows, column by column; `numbers` and every column have the same
    length.
    """

    file: str
    numbers: Sequence[int]  # Place.row of each row
    columns: dict[str, list]
    num_bytes: int  # bytes of the file read since the previous chunk


def read_files(
    files: Sequence[File], encoding: str, separator: str | None, columns: Sequence[str] | None = None
) -> Iterator[Chunk]:
    r"""Yield all rows of the files, in order.

    Only \n and \r\n end a line, and \r\n is read as \n.

    Args:
        files: the files.
        encoding: encoding of text formats.
        separator: separator of the documents of txt files, whose only column is `text`; None: each line
            is a document; "": each file is one.
        columns: columns to read; None: all.

    Raises: UserError, naming the place, for what is damaged or malformed, and for a missing column.
    """
    if separator is None:
        separator = "\n"
    delimiters = {"csv": ",", "tsv": "\t"}
    for file in files:
        if file.format == "txt":
            yield from _read_txt(file, encoding, separator, columns)
        elif file.format == "json":
            yield from _read_json(file, encoding, columns)
        elif file.format == "parquet":
            yield from _read_parquet(file, columns)
        elif file.format == "arrow":
            yield from _read_arrow(file, columns)
        else:
            yield from _read_csv(file, encoding, delimiters[file.format], columns)


def _read_txt(
    file: File, encoding: str, separator: str, columns: Sequence[str] | None
) -> Iterator[Chunk]:
    check_columns(columns, ["text"], file.label)
    row = 1
    num_newlines = separator.count("\n")
    for pieces, num_bytes in split(texts(file, encoding), separator):
        rows = list(accumulate((piece.count("\n") + num_newlines for piece in pieces), initial=row))
        row = rows.pop()
        yield Chunk(file.label, rows, {"text": pieces}, num_bytes)


def _read_json(file: File, encoding: str, columns: Sequence[str] | None) -> Iterator[Chunk]:
    first = 1
    for lines, num_bytes in split(without_bom(texts(file, encoding)), "\n"):
        numbers = [number for number, line in enumerate(lines, first) if line and not line.isspace()]
        rows = [_parse_object(lines[number - first], Place(file.label, number)) for number in numbers]
        first += len(lines)
        if columns is None:
            yield from _by_keys(file.label, numbers, rows, num_bytes)
            continue
        try:
            values = {name: [row[name] for row in rows] for name in columns}
        except KeyError:
            for number, row in zip(numbers, rows, strict=True):
                check_columns(columns, row, str(Place(file.label, number)))
            raise
        yield Chunk(file.label, numbers, values, num_bytes)


def _by_keys(
    label: str, numbers: list[int], rows: list[dict[str, Any]], num_bytes: int
) -> Iterator[Chunk]:
    """Group consecutive rows by their keys: a missing key is not a null."""
    for names, group in groupby(zip(numbers, rows, strict=True), lambda pair: pair[1].keys()):
        members = list(group)
        values = {name: [row[name] for _, row in members] for name in names}
        yield Chunk(label, [number for number, _ in members], values, num_bytes)
        num_bytes = 0  # the first chunk counts all of them


def _parse_object(line: str, place: Place) -> dict[str, Any]:
    fix = "each line holds one object; `jq -c '.[]'` splits an array into lines"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at character {error.colno}"
        raise UserError(f"malformed JSON: {reason}", str(place), fix) from error
    if not isinstance(row, dict):
        raise UserError(f"not a JSON object but a {type(row).__name__}", str(place), fix)
    return row


def _read_csv(
    file: File, encoding: str, delimiter: str, columns: Sequence[str] | None
) -> Iterator[Chunk]:
    num_bytes = 0

    def lines() -> Iterator[str]:
        nonlocal num_bytes
        for pieces, taken in split(without_bom(texts(file, encoding)), "\n"):
            num_bytes += taken
            for piece in pieces:
                yield piece + "\n"

    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        check_columns(columns, header, file.label)
        names = header if columns is None else columns
        indices = {name: header.index(name) for name in names}
        for numbers, rows in _csv_batches(reader, len(header), file.label):
            values = {name: [row[index] for row in rows] for name, index in indices.items()}
            yield Chunk(file.label, numbers, values, num_bytes)
            num_bytes = 0
    except csv.Error as error:
        where = f"{file.label}, line {reader.line_num}"
        fix = "is a quote left open, or not doubled inside a field?"
        raise UserError(f"malformed csv: {error}", where, fix) from error


def _csv_batches(
    reader: Any, num_columns: int, label: str
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """Yield numbers and fields of up to BATCH rows at a time."""
    numbers = []
    rows = []
    end = reader.line_num
    for row in reader:
        start = end + 1
        end = reader.line_num
        if not row:  # a blank line
            continue
        if len(row) != num_columns:
            what = f"{len(row)} fields under a header of {num_columns}"
            fix = "put quotes around fields that hold the delimiter"
            raise UserError(what, str(Place(label, start)), fix)
        numbers.append(start)
        rows.append(row)
        if len(rows) == BATCH:
            yield numbers, rows
            numbers = []
            rows = []
    yield numbers, rows


def _read_parquet(file: File, columns: Sequence[str] | None) -> Iterator[Chunk]:
    import pyarrow.parquet

    # These two arguments keep row groups, one of which may be the whole file, out of memory.
    with (
        _readable(file),
        pyarrow.parquet.ParquetFile(file.path, buffer_size=BLOCK, pre_buffer=False) as parquet,
    ):
        check_columns(columns, parquet.schema_arrow.names, file.label)
        names = None if columns is None else list(columns)
        size = file.path.stat().st_size
        num_rows = max(parquet.metadata.num_rows, 1)
        first = 1
        for batch in parquet.iter_batches(BATCH, columns=names, use_threads=False):
            yield _chunk_of(batch, first, file.label, size * len(batch) // num_rows)
            first += len(batch)


def _read_arrow(file: File, columns: Sequence[str] | None) -> Iterator[Chunk]:
    """Yield the rows of an Arrow file in either IPC format: file, or stream, which `datasets` writes."""
    import pyarrow

    # Not memory-mapped: the pages of a map count as resident memory.
    with _readable(file), pyarrow.OSFile(str(file.path)) as stream:
        is_file = stream.read(6) == b"ARROW1"
        stream.seek(0)
        batches: Iterable[pyarrow.RecordBatch]
        if is_file:
            reader = pyarrow.ipc.open_file(stream)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            batches = reader = pyarrow.ipc.open_stream(stream)
        check_columns(columns, reader.schema.names, file.label)
        first = 1
        position = 0
        for batch in batches:
            chosen = batch
            if columns is not None:
                chosen = batch.select(list(columns))
            num_bytes = stream.tell() - position
            position = stream.tell()
            for start in range(0, len(chosen), BATCH):
                part = chosen.slice(start, BATCH)
                yield _chunk_of(part, first + start, file.label, num_bytes * len(part) // len(chosen))
            first += len(chosen)


def _chunk_of(batch: "pyarrow.RecordBatch", first: int, label: str, num_bytes: int) -> Chunk:
    columns = {
        name: column.to_pylist() for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    return Chunk(label, range(first, first + len(batch)), columns, num_bytes)


_CHOICES = {  # the options that read rows with such a column
    "messages": "data=chat for conversations",
    "completion": "data=chat for prompts and completions",
    "target": "data=pairs objective=pairs for sources and targets",
}


@contextmanager
def _readable(file: File) -> Iterator[None]:
    """Context manager: turn errors of reading the file into UserErrors."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error


def check_columns(columns: Iterable[str] | None, known: Iterable[str], where: str) -> None:
    """Raise UserError if one of `columns` is not known."""
    known = list(known)
    for name in columns or ():
        if name not in known:
            fix = f"data.text_column names one of: {', '.join(known)}"
            choice = next((_CHOICES[column] for column in known if column in _CHOICES), None)
            if choice:
                fix += f"; or {choice}"
            raise UserError(f"no column '{name}'{did_you_mean(name, known)}", where, fix)
