"""Rows as readers give them: columns of several rows, the place of each, and names of nested values."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lmft.errors import UserError, did_you_mean

BATCH = 512  # rows per chunk of csv, parquet and arrow files
_CHOICES = {  # the options that read rows with such a column
    "messages": "data=chat for conversations",
    "completion": "data=chat for prompts and completions",
    "target": "data=pairs objective=pairs for sources and targets",
}


class Place(NamedTuple):
    """File and row; `row` counts from 1. In text files it is the line where the row begins; in a JSON
    document it is the number of the object.
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


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """Return a column's value; `a.b` is the value of `b` in the column `a`, if no column has that name.

    A list gives the list of its members' values, and null gives null. Raises: KeyError.
    """
    if name in row:
        return row[name]
    column, dot, path = name.partition(".")
    if not dot:
        raise KeyError(name)
    return _inner_value(row[column], path)


def _inner_value(value: Any, path: str) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return [_inner_value(member, path) for member in value]
    if isinstance(value, Mapping):
        return value_of(value, path)
    raise KeyError(path)


def column_of(name: str, known: Iterable[str]) -> str:
    """Return the column that holds what `name` leads to: the name itself, or what is before its dot."""
    known = list(known)
    before = name.partition(".")[0]
    if name not in known and before in known:
        return before
    return name


def with_nested(columns: dict[str, list], names: Iterable[str]) -> dict[str, list]:
    """Return the columns, and what `names` lead to inside them, as columns of these names."""
    nested = dict(columns)
    for name in names:
        column = column_of(name, columns)
        if column == name:
            continue
        try:
            nested[name] = [value_of({column: value}, name) for value in columns[column]]
        except KeyError:
            continue  # check_columns, or the format of the rows, reports what is missing
    return nested


def check_columns(
    columns: Iterable[str] | None, known: Iterable[str], where: str, hint: str | None = None
) -> None:
    """Raise UserError if one of `columns` is not known; `hint` is one more way to mend it."""
    known = list(known)
    for name in columns or ():
        if name not in known:
            raise missing_column(name, known, where, hint)


def missing_column(name: str, known: Sequence[str], where: str, hint: str | None = None) -> UserError:
    """Return the error for a column that is not there."""
    fix = f"data.text_column names one of: {', '.join(known)}"
    choice = next((_CHOICES[column] for column in known if column in _CHOICES), None)
    for more in (choice, hint):
        if more:
            fix += f"; or {more}"
    return UserError(f"no column '{name}'{did_you_mean(name, known)}", where, fix)


def names_in(row: Mapping[str, Any]) -> list[str]:
    """Return the names of a row's columns, and of the values nested in them."""
    names = []
    for name, value in row.items():
        names.append(name)
        if isinstance(value, Mapping):
            names += [f"{name}.{inner}" for inner in names_in(value)]
    return names
