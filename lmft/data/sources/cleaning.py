"""Cleaning of rows: characters that no text should hold are removed and counted."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lmft.data.sources.readers import Chunk, Place
from lmft.data.sources.source import Source
from lmft.errors import UserError

T = TypeVar("T")
CLEANERS: dict[str, Callable[[str], str]] = {
    "nul": lambda text: text.replace("\0", ""),
    "bom": lambda text: text.lstrip("\ufeff"),
    "surrogate": lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"),
}


def documents(
    source: Source,
    text_column: str,
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[str]:
    """Yield the cleaned text of each row that has any.

    Args:
        source: where rows are read.
        text_column: the column of the texts.
        cleaned: counts the rows dropped (`none`: no value, `blank`: only white space) and the texts
            cleaned (`nul`: NUL characters removed, `bom`: a leading byte order mark removed,
            `surrogate`: halves of surrogate pairs, which no encoding can write, replaced by U+FFFD).
        advance: called with the number of bytes of `source.size` read since the last call.

    Raises: UserError, naming the row, for a value that is not text and for what cannot be read.
    """
    for chunk in _chunks(source, [text_column], advance):
        values = chunk.columns[text_column]
        if not _is_clean(values):
            places = (Place(chunk.file, number) for number in chunk.numbers)
            values = [
                _clean_text(value, text_column, place, cleaned)
                for value, place in zip(values, places, strict=True)
            ]
        for text in values:
            if text and not text.isspace():
                yield text
            elif text is not None:
                cleaned["blank"] += 1


def _chunks(
    source: Source, columns: list[str] | None, advance: Callable[[int], object] | None
) -> Iterator[Chunk]:
    """Yield a source's chunks; call `advance` with the size of each after its rows were used."""
    for chunk in source.read(columns):
        yield chunk
        if advance:
            advance(chunk.num_bytes)


def _is_clean(values: list) -> bool:
    """Return whether all values are clean text; checking all at once is fast."""
    try:
        text = "".join(values)
        text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return "\0" not in text and "\ufeff" not in text


def _clean_text(value: object, column: str, place: Place, cleaned: Counter[str]) -> str | None:
    if value is None:
        cleaned["none"] += 1
        return None
    if not isinstance(value, str):
        what = f"column '{column}' holds a {type(value).__name__}, not text"
        raise UserError(what, str(place), "data.text_column=NAME of the column that holds the text")
    text, reasons = _clean(value)
    cleaned.update(reasons)
    return text


def _clean(text: str) -> tuple[str, list[str]]:
    """Return the text cleaned, and the reasons: the CLEANERS that changed it."""
    reasons = []
    for reason, cleaner in CLEANERS.items():
        cleaned = cleaner(text)
        if cleaned != text:
            reasons.append(reason)
            text = cleaned
    return text, reasons


def clean_rows(
    source: Source,
    read: Callable[[dict[str, Any]], T | None],
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, T]]:
    """Clean rows of several columns; yield each row's place and its item.

    Args:
        source: where rows are read.
        read: makes an item of a cleaned row; None: the row has no value, and is counted as `none`.
        cleaned: counts rows, as in `documents`.
        advance: called with the number of bytes read, as in `documents`.

    Raises: what `read` raises, with the row's place if that is a UserError; UserError for what cannot be
        read.
    """
    for chunk in _chunks(source, None, advance):
        for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
            place = Place(chunk.file, number)
            reasons: set[str] = set()
            row = clean_value(dict(zip(chunk.columns, values, strict=True)), reasons)
            try:
                item = read(row)
            except UserError as error:
                error.where = str(place)
                raise
            if item is None:
                cleaned["none"] += 1
                continue
            cleaned.update(reasons)
            yield place, item


def clean_value(value: Any, reasons: set[str]) -> Any:
    """Return the value with all text in it cleaned, and add the reasons to `reasons`."""
    if isinstance(value, dict):
        return {key: clean_value(inner, reasons) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean_value(inner, reasons) for inner in value]
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    text, changed = _clean(value)
    reasons.update(changed)
    return text


def type_name(value: object) -> str:
    """Return what a value is called in messages."""
    names = {
        str: "text",
        list: "a list",
        dict: "an object",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")
