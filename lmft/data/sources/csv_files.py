"""Read csv and tsv files."""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from lmft.data.sources.decoding import bad_byte, beginning, split, texts, without_bom
from lmft.data.sources.dialect import Dialect, find_dialect
from lmft.data.sources.opening import File
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import BATCH, Chunk, Place, check_columns
from lmft.data.sources.tally import Tally
from lmft.errors import UserError


class _Row(NamedTuple):
    number: int  # of the line where the row begins
    fields: list[str]


def read_csv(
    file: File, reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    """Yield the rows of a csv or tsv file; see `lmft.data.sources.readers.read_files`."""
    dialect = find_dialect(beginning(file, reading), file.format == "tsv", reading.csv, reading.names)
    rows = _rows(file, reading, dialect, tally)
    first = next(rows, None)
    if first is None:
        return
    tally.note(f"{file.format} with {dialect}", file.label)
    names = first.fields
    if not dialect.has_header:
        names = [f"column{number}" for number in range(1, len(names) + 1)]
        rows = chain([first], rows)
    wanted = _wanted(names, columns, dialect, reading, file.label)
    for batch in _batches(rows, len(names), file, reading, tally):
        numbers = [row.number for row in batch]
        values = {name: [row.fields[index] for row in batch] for name, index in wanted.items()}
        yield Chunk(file.label, numbers, values)


def _wanted(
    names: list[str],
    columns: Sequence[str] | None,
    dialect: Dialect,
    reading: Reading,
    label: str,
) -> dict[str, int]:
    """Return name and index of each column to read. Raises: UserError if one is missing or ambiguous."""
    hint = "data.csv.header=true, if the first row names the columns"
    if dialect.has_header:
        hint = "data.csv.header=false, if the first row is text"
    if reading.csv.delimiter is None:
        hint += "; data.csv.delimiter=CHARACTER, if another one separates them"
    check_columns(columns, names, label, hint)
    for name in columns or reading.names:
        if names.count(name) > 1:
            what = f"{names.count(name)} columns are named '{name}'"
            raise UserError(what, label, "give each column a name of its own")
    return {name: names.index(name) for name in columns or names}


def _batches(
    rows: Iterable[_Row], num_columns: int, file: File, reading: Reading, tally: Tally
) -> Iterator[list[_Row]]:
    """Yield up to BATCH rows at a time, without those that are rejected."""
    batch = []
    for row in rows:
        error = _wrong(row, num_columns, file, reading)
        if error:
            tally.reject(error)
            continue
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _wrong(row: _Row, num_columns: int, file: File, reading: Reading) -> UserError | None:
    """Return what is wrong with a row, if anything is."""
    place = str(Place(file.label, row.number))
    if len(row.fields) != num_columns:
        fix = "put quotes around fields that hold the delimiter"
        if file.format == "tsv":
            fix = "data.csv.quote='\"', if fields with tabs are in quotes"
        return UserError(f"{len(row.fields)} fields under a header of {num_columns}", place, fix)
    if reading.keeps_bad_bytes and (bad := bad_byte("".join(row.fields))):
        return UserError(f"not {reading.encoding} text: {bad}", place)
    return None


def _rows(file: File, reading: Reading, dialect: Dialect, tally: Tally) -> Iterator[_Row]:
    """Yield the rows of the file, the header too, without blank lines and what is malformed."""
    pieces = split(without_bom(texts(file, reading, tally)), "\n")
    lines = chain.from_iterable(pieces)
    if dialect.quote is None and dialect.escape is None:
        for number, line in enumerate(lines, 1):
            if line:
                yield _Row(number, line.split(dialect.delimiter))
        return
    yield from _quoted_rows(_Lines(lines), file, dialect, tally)


class _Lines:
    """Lines for the csv module; after a malformed row all of its lines but the first are read again."""

    def __init__(self, lines: Iterator[str]):
        self._lines = lines
        self._again: deque[str] = deque()
        self._of_row: list[str] = []
        self.number = 0  # of the last line that was read

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self._of_row.append(line)
        return line + "\n"

    def begin_row(self) -> int:
        """Return the number of the line where the next row begins."""
        self._of_row.clear()
        return self.number + 1

    def give_back(self) -> None:
        """Take back the lines of the row, but the first."""
        again = self._of_row[1:]
        self._again.extendleft(reversed(again))
        self.number -= len(again)


def _quoted_rows(lines: _Lines, file: File, dialect: Dialect, tally: Tally) -> Iterator[_Row]:
    reader = dialect.reader(lines)
    num_with_breaks = 0
    while True:
        number = lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            tally.reject(_malformed(error, file, number, lines.number))
            lines.give_back()
            continue
        if fields:  # not a blank line
            num_with_breaks += lines.number > number
            yield _Row(number, fields)
    if num_with_breaks:
        tally.note(f"rows that hold line breaks: {num_with_breaks}", file.label)


def _malformed(error: csv.Error, file: File, first: int, last: int) -> UserError:
    where = f"{file.label}, line {first}"
    if last > first:
        where = f"{file.label}, lines {first} to {last}"
    fix = "is a quote left open, or not doubled inside a field? data.csv.quote=none, if quotes are "
    fix += "characters like others; data.csv.escape='\\', if one stands before a quote in a field"
    return UserError(f"malformed csv: {error}", where, fix)
