"""Cleaning of rows: characters that no text should hold are removed and counted."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lmft.data.sources.row_text import RowText
from lmft.data.sources.rows import Chunk, Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError

T = TypeVar("T")
CLEANERS: dict[str, Callable[[str], str]] = {
    "nul": lambda text: text.replace("\0", ""),
    "bom": lambda text: text.lstrip("\ufeff"),
    "surrogate": lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace"),
}


def documents(source: Source, row_text: RowText, tally: Tally) -> Iterator[str]:
    """Yield the cleaned text of each row that has any.

    Args:
        source: where rows are read.
        row_text: makes a row's text of its columns.
        tally: counts the rows dropped (`none`: no value, `blank`: only white space) and the texts
            cleaned (`nul`: NUL characters removed, `bom`: a leading byte order mark removed,
            `surrogate`: halves of surrogate pairs, which no encoding can write, replaced by U+FFFD).

    Raises: UserError, naming the row, for a value that is not text and for what cannot be read, unless
        the tally skips such rows.
    """
    for _, texts in _clean_chunks(source, row_text, tally):
        for text in texts:
            if text and not text.isspace():
                yield text
            elif text is not None:
                tally.counts["blank"] += 1


def placed_documents(source: Source, row_text: RowText, tally: Tally) -> Iterator[tuple[Place, str]]:
    """Yield what `documents` yields, each text with its place."""
    for chunk, texts in _clean_chunks(source, row_text, tally):
        for number, text in zip(chunk.numbers, texts, strict=True):
            if text and not text.isspace():
                yield Place(chunk.file, number), text
            elif text is not None:
                tally.counts["blank"] += 1


def _clean_chunks(
    source: Source, row_text: RowText, tally: Tally
) -> Iterator[tuple[Chunk, Sequence[str | None]]]:
    """Yield chunks of rows with the cleaned text of each row; None: it has none, or is rejected."""
    for chunk in source.read(row_text.columns, tally):
        texts = next(iter(chunk.columns.values()))
        if len(row_text.columns) > 1 or not _is_clean(texts):
            rows = zip(*(chunk.columns[name] for name in row_text.columns), strict=True)
            places = (Place(chunk.file, number) for number in chunk.numbers)
            texts = [
                _clean_text(row, row_text, place, tally) for row, place in zip(rows, places, strict=True)
            ]
        yield chunk, texts


def _is_clean(values: list) -> bool:
    """Return whether all values are clean text; checking all at once is fast."""
    try:
        text = "".join(values)
        text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return "\0" not in text and "\ufeff" not in text


def _clean_text(row: Sequence[Any], row_text: RowText, place: Place, tally: Tally) -> str | None:
    """Return a row's text, cleaned; None if it has none, or is rejected."""
    try:
        text = row_text.of(row)
    except UserError as error:
        error.where = str(place)
        tally.reject(error)
        return None
    if text is None:
        tally.counts["none"] += 1
        return None
    text, reasons = _clean(text)
    tally.counts.update(reasons)
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
    source: Source, read: Callable[[dict[str, Any]], T | None], tally: Tally
) -> Iterator[tuple[Place, T]]:
    """Clean rows of several columns; yield each row's place and its item.

    Args:
        source: where rows are read.
        read: makes an item of a cleaned row; None: the row has no value, and is counted as `none`.
        tally: counts rows, as in `documents`.

    Raises: what `read` raises, with the row's place if that is a UserError, unless the tally skips such
        rows; UserError for what cannot be read.
    """
    for chunk in source.read(None, tally):
        for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
            place = Place(chunk.file, number)
            reasons: set[str] = set()
            row = clean_value(dict(zip(chunk.columns, values, strict=True)), reasons)
            try:
                item = read(row)
            except UserError as error:
                error.where = str(place)
                tally.reject(error)
                continue
            if item is None:
                tally.counts["none"] += 1
                continue
            tally.counts.update(reasons)
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
