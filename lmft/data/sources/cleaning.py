"""Rows cleaned: characters that no text should hold are taken out and counted, other values than text are
refused.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lmft.data.sources.readers import Place
from lmft.data.sources.source import Source
from lmft.errors import UserError

T = TypeVar("T")
CLEANERS: dict[str, Callable[[str], str]] = {
    "nul": lambda text: text.replace("\0", ""),
    "bom": lambda text: text.lstrip("\ufeff"),
    "surrogate": lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"),
}


def documents(
    source: Source, text_column: str, cleaned: Counter[str], advance: Callable[[int], object] | None = None
) -> Iterator[str]:
    """The text of each row that has any, cleaned.

    `cleaned` counts the rows dropped (`none`: no value, `blank`: white space only) and the documents mended
    (`nul`: NUL
    characters taken out, `bom`: a byte order mark taken off the beginning, `surrogate`: halves of surrogate
    pairs, which no encoding can write, replaced by U+FFFD). `advance`, if given, is told how many more bytes
    of `source.size` have been read.

    Raises UserError, naming the row, for a value that is not text and for what cannot be read.
    """
    for chunk in source.read([text_column]):
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
        if advance:
            advance(chunk.num_bytes)


def _is_clean(values: list) -> bool:
    """Whether all values are text without anything to mend; told from all at once, which is quick."""
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
    for reason, mend in CLEANERS.items():
        mended = mend(value)
        if mended != value:
            cleaned[reason] += 1
            value = mended
    return value


def clean_rows(
    source: Source,
    read: Callable[[dict[str, Any]], T | None],
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, T]]:
    """Each row's place, and what `read` makes of its mended columns; None: the row has no value, and counts
    as `none`.

    `cleaned` and `advance` are those of `sources.documents`. Raises what `read` raises, with the row's place
    if that is a UserError, and UserError for what cannot be read.
    """
    for chunk in source.read(None):
        for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
            place, reasons = Place(chunk.file, number), set()
            try:
                made = read(clean_value(dict(zip(chunk.columns, values, strict=True)), reasons))
            except UserError as error:
                error.where = str(place)
                raise
            cleaned.update(["none"] if made is None else reasons)
            if made is not None:
                yield place, made
        if advance:
            advance(chunk.num_bytes)


def clean_value(value: Any, reasons: set[str]) -> Any:
    """The value with all text in it mended as `sources.MENDS` does, and what that was for."""
    if isinstance(value, dict):
        return {key: clean_value(each, reasons) for key, each in value.items()}
    if isinstance(value, list):
        return [clean_value(each, reasons) for each in value]
    if isinstance(value, str) and not (value.isascii() and "\0" not in value):
        for reason, mend in CLEANERS.items():
            better = mend(value)
            if better != value:
                reasons.add(reason)
                value = better
    return value


def type_name(value: object) -> str:
    """What a value is, for messages."""
    names = {
        str: "text",
        list: "a list",
        dict: "an object",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")
