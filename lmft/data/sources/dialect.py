"""Dialects of csv and tsv files: found from the beginning of a file, unless the user sets them."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from lmft.data.config import NO_CHARACTER, CsvConfig
from lmft.data.sources.rows import column_of

_DELIMITERS = (",", ";", "\t", "|")
_SINGLE_QUOTED = re.compile(r"(^|[,;\t|])'([^'\n]|'')*'($|[,;\t|])", re.MULTILINE)  # a field
_LONGEST_NAME = 64  # characters of a column's name, where no option names the column
MAX_FIELD = 1 << 27  # characters of a csv field: limits the text that an unclosed quote takes in


@dataclass(frozen=True)
class Dialect:
    """The way a file writes its fields, and whether its first row names the columns."""

    delimiter: str
    quote: str | None
    escape: str | None
    has_header: bool = True

    def __str__(self) -> str:
        parts = [f"delimiter {_shown(self.delimiter)}", f"quote {_shown(self.quote)}"]
        if self.escape:
            parts.append(f"escape {_shown(self.escape)}")
        parts.append("a header" if self.has_header else "no header")
        return ", ".join(parts)

    def reader(self, lines: Iterable[str]) -> Any:
        """Return a reader of the csv module that refuses malformed records."""
        csv.field_size_limit(MAX_FIELD)
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            strict=True,
        )


def _shown(character: str | None) -> str:
    return {None: "none", "\t": "tab", " ": "space"}.get(character, f"'{character}'")


def find_dialect(beginning: str, is_tsv: bool, options: CsvConfig, names: Sequence[str]) -> Dialect:
    r"""Return the dialect of a file.

    In tsv files, tabs separate fields and no character is special (IANA, text/tab-separated-values). In
    csv files, the delimiter is the one of , ; tab and | with which most rows have as many fields as the
    first one. A quote is ", or ' if that fits better; a quote inside a field is doubled, or follows a \
    if that fits better. The first row is a header if it holds one of the columns' names, or else if its
    fields are short and distinct, and none is a number.

    Args:
        beginning: the file's first characters.
        is_tsv: the file is tab-separated by its name.
        options: what the user sets.
        names: columns that are wanted.
    """
    lines = [line + "\n" for line in beginning.split("\n")]
    candidates = list(_candidates(beginning, is_tsv, options))
    best = max(candidates, key=lambda dialect: _fit(dialect, lines))
    if options.quote is None and not is_tsv and best.quote == '"':
        best = _with_single_quotes(best, lines)
    has_header = options.header
    if has_header is None:
        has_header = _is_header(next(_rows(best, lines), []), names)
    return replace(best, has_header=has_header)


def _candidates(beginning: str, is_tsv: bool, options: CsvConfig) -> Iterator[Dialect]:
    """Yield the dialects that the file may have, the usual ones first."""
    delimiters: Sequence[str] = _DELIMITERS
    quotes: Sequence[str | None] = ('"',)
    if is_tsv:
        delimiters = ("\t",)
        quotes = (None,)
    escapes: Sequence[str | None] = (None,)
    if not is_tsv and _SINGLE_QUOTED.search(beginning):
        quotes = ('"', "'")
    if not is_tsv and '\\"' in beginning:
        escapes = (None, "\\")
    if options.delimiter:
        delimiters = (options.delimiter,)
    if options.quote:
        quotes = (_character(options.quote),)
    if options.escape:
        escapes = (_character(options.escape),)
    for escape in escapes:
        for quote in quotes:
            for delimiter in delimiters:
                yield Dialect(delimiter, quote, escape)


def _character(option: str) -> str | None:
    return None if option == NO_CHARACTER else option


def _rows(dialect: Dialect, lines: list[str]) -> Iterator[list[str]]:
    """Yield the rows of the lines, without blank ones, up to the first malformed one."""
    reader = dialect.reader(lines)
    try:
        yield from filter(None, reader)
    except csv.Error:
        return


def _fit(dialect: Dialect, lines: list[str]) -> float:
    """Return the share of the lines that belong to rows with as many fields as the first one.

    0 if the first row has one field.
    """
    reader = dialect.reader(lines)
    num_fields = 0
    num_fitting = 0
    begin = 0
    while begin < len(lines):
        try:
            row = next(reader)
        except csv.Error:
            row = None
        num_fields = num_fields or len(row or ())
        if row is not None and len(row) in (0, num_fields):
            num_fitting += reader.line_num - begin
        begin = reader.line_num
    if num_fields < 2:
        return 0.0
    return num_fitting / len(lines)


def _with_single_quotes(dialect: Dialect, lines: list[str]) -> Dialect:
    """Return the dialect with ' as the quote, if all values of a column are written between two of
    them, and no row, such as a header, has all its fields between two of ".
    """
    single = replace(dialect, quote="'")
    if any(all(map(_is_double_quoted, row)) for row in _rows(single, lines)):
        return dialect
    values = zip(*islice(_rows(dialect, lines), 1, None), strict=False)
    for column in values:
        if len(column) > 1 and all(len(value) > 1 and value[0] == value[-1] == "'" for value in column):
            return single
    return dialect


def _is_double_quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def _is_header(row: list[str], names: Sequence[str]) -> bool:
    if any(column_of(name, row) in row for name in names):
        return True
    # pandas writes its row numbers into a first column without a name.
    is_named = all(field.strip() for field in row[1:])
    is_short = all(len(field) <= _LONGEST_NAME for field in row)
    has_number = any(_is_number(field) for field in row)
    return bool(row) and is_named and is_short and not has_number and len(set(row)) == len(row)


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
