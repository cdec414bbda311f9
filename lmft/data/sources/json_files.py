"""Read JSON: an object per line, or documents with an array of objects."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from lmft.data.sources.decoding import bad_byte, beginning, split, texts, without_bom
from lmft.data.sources.opening import File
from lmft.data.sources.reading import Reading
from lmft.data.sources.rows import Chunk, Place, missing_column, names_in, value_of
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

_OF_LINES = (".jsonl", ".ndjson")  # extensions of files with an object per line
_BATCH = 512  # rows of a document per chunk
_Numbered = list[tuple[int, dict[str, Any]]]


def read_json(
    file: File, reading: Reading, columns: Sequence[str] | None, tally: Tally
) -> Iterator[Chunk]:
    """Yield the rows of a JSON file; see `lmft.data.sources.readers.read_files`.

    A file named .jsonl, or with an object in its first line, has one in each line. Any other file is
    read whole, and holds an array of objects, an object with such an array under one of its keys, or
    objects one after another.
    """
    if not has_object_per_line(file, reading):
        batches = _document_rows(file, reading, tally)
    else:
        batches = _line_rows(file, reading, tally)
    for rows in batches:
        if columns is None:
            yield from _by_keys(file.label, rows, reading.names)
        else:
            yield _chosen(file.label, rows, columns, tally)


def has_object_per_line(file: File, reading: Reading) -> bool:
    """Return whether each line of a file holds an object. Raises: UserError if it is not text."""
    return not _is_document(beginning(file, reading), file, reading.names)


def _is_document(head: str, file: File, names: Sequence[str]) -> bool:
    """Return whether a file that begins with `head` is one JSON document, and not one per line."""
    text = head.lstrip()
    line, _, rest = text.partition("\n")
    if text.startswith("["):
        return True
    if not text.startswith("{") or file.extension in _OF_LINES:
        return False
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip())  # it continues in the next line, or beyond `head`
    except (ValueError, RecursionError):
        return False
    return not rest.strip() and _list_in(value, file, names) is not None


def _list_in(value: dict[str, Any], file: File, names: Iterable[str]) -> str | None:
    """Return the key under which an object holds the rows, as a list of objects; None if it is a row
    itself, because it has one of the columns in `names`, or no such list.

    Raises: UserError if it holds several lists.
    """
    if any(name.partition(".")[0] in value for name in names):
        return None
    keys = [key for key, inner in value.items() if _is_list_of_objects(inner)]
    if len(keys) > 1:
        what = f"several lists of objects: {', '.join(keys)}"
        raise UserError(what, file.label, "keep the one to read: jq '.NAME' FILE")
    return keys[0] if keys else None


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _line_rows(file: File, reading: Reading, tally: Tally) -> Iterator[_Numbered]:
    first = file.first_row
    blocks = texts(file, reading, tally)
    if first == 1:
        blocks = without_bom(blocks)
    for lines in split(blocks, "\n"):
        rows = []
        for number, line in enumerate(lines, first):
            if not line or line.isspace():
                continue
            try:
                rows.append((number, _object_of(line, reading)))
            except UserError as error:
                error.where = str(Place(file.label, number))
                tally.reject(error)
        first += len(lines)
        yield rows


def _object_of(line: str, reading: Reading) -> dict[str, Any]:
    fix = "each line holds one object"
    if reading.keeps_bad_bytes and (bad := bad_byte(line)):
        raise UserError(f"not {reading.encoding} text: {bad}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg} at character {error.colno}"
        raise UserError(f"malformed JSON: {reason}", fix=fix) from error
    if not isinstance(row, dict):
        raise UserError(f"not a JSON object but a {type(row).__name__}", fix=fix)
    return row


def _document_rows(file: File, reading: Reading, tally: Tally) -> Iterator[_Numbered]:
    text = "".join(without_bom(texts(file, reading, tally)))
    values = _values(text, file.label)
    if len(values) == 1 and isinstance(values[0], dict):
        key = _list_in(values[0], file, reading.names)
        if key is not None:
            values = values[0][key]
            tally.note(f"JSON with its rows in the list '{key}'", file.label)
    elif len(values) == 1 and isinstance(values[0], list):
        values = values[0]
        tally.note("JSON with its rows in an array", file.label)
    has_bad_bytes = reading.keeps_bad_bytes and bad_byte(text) is not None
    rows = []
    for number, value in enumerate(values, 1):
        error = None
        if not isinstance(value, dict):
            fix = "each member of the array is one object"
            error = UserError(f"not a JSON object but a {type(value).__name__}", fix=fix)
        elif has_bad_bytes and (bad := bad_byte(json.dumps(value, ensure_ascii=False))):
            error = UserError(f"not {reading.encoding} text: {bad}")
        if error:
            error.where = str(Place(file.label, number))
            tally.reject(error)
        else:
            rows.append((number, value))
    for begin in range(0, len(rows), _BATCH):
        yield rows[begin : begin + _BATCH]


def _values(text: str, label: str) -> list[Any]:
    """Return the JSON values that a text holds one after another. Raises: UserError."""
    decoder = json.JSONDecoder()
    values = []
    position = _after_space(text, 0)
    try:
        while position < len(text):
            value, end = decoder.raw_decode(text, position)
            values.append(value)
            position = _after_space(text, end)
    except (ValueError, RecursionError) as error:
        where = label
        reason = str(error)
        if isinstance(error, json.JSONDecodeError):
            reason = error.msg
            where = f"{label}, line {error.lineno}, character {error.colno}"
        fix = "a file of lines is skipped row by row with data.on_error=skip, an array is not"
        raise UserError(f"malformed JSON: {reason}", where, fix) from error
    return values


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _chosen(label: str, rows: _Numbered, columns: Sequence[str], tally: Tally) -> Chunk:
    """Return the columns of rows; rows without one of them are rejected."""
    numbers = []
    values = []
    for number, row in rows:
        try:
            values.append([value_of(row, name) for name in columns])
            numbers.append(number)
        except KeyError:
            known = names_in(row)
            missing = next(name for name in columns if name not in known)
            tally.reject(missing_column(missing, known, str(Place(label, number))))
    by_column = [list(column) for column in zip(*values, strict=True)] or [[] for _ in columns]
    return Chunk(label, numbers, dict(zip(columns, by_column, strict=True)))


def _by_keys(label: str, rows: _Numbered, names: Iterable[str]) -> Iterator[Chunk]:
    """Group consecutive rows by their keys: a missing key is not a null."""
    nested = [name for name in names if "." in name]
    for _, row in rows:
        for name in nested:
            try:
                row[name] = value_of(row, name)
            except KeyError:
                continue  # the format of the rows reports it
    for keys, group in groupby(rows, lambda numbered: numbered[1].keys()):
        members = list(group)
        columns = {key: [row[key] for _, row in members] for key in keys}
        yield Chunk(label, [number for number, _ in members], columns)
