"""Rows of several values: each mended, read as what it stands for, and named where that fails."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from lmft.data.sources import MENDS, Place, Source
from lmft.errors import UserError

T = TypeVar("T")


def each_row(
    source: Source,
    read: Callable[[dict[str, Any]], T | None],
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, T]]:
    """Each row's place, and what `read` makes of its mended columns; None: the row has no value, and counts as `none`.

    `cleaned` and `advance` are those of `sources.documents`. Raises what `read` raises, with the row's place if that is
    a UserError, and UserError for what cannot be read.
    """
    for chunk in source.read(None):
        for number, *values in zip(chunk.numbers, *chunk.columns.values(), strict=True):
            place, reasons = Place(chunk.file, number), set()
            try:
                made = read(mended(dict(zip(chunk.columns, values, strict=True)), reasons))
            except UserError as error:
                error.where = str(place)
                raise
            cleaned.update(["none"] if made is None else reasons)
            if made is not None:
                yield place, made
        if advance:
            advance(chunk.num_bytes)


def mended(value: Any, reasons: set[str]) -> Any:
    """The value with all text in it mended as `sources.MENDS` does, and what that was for."""
    if isinstance(value, dict):
        return {key: mended(each, reasons) for key, each in value.items()}
    if isinstance(value, list):
        return [mended(each, reasons) for each in value]
    if isinstance(value, str) and not (value.isascii() and "\0" not in value):
        for reason, mend in MENDS.items():
            better = mend(value)
            if better != value:
                reasons.add(reason)
                value = better
    return value


def kind_of(value: object) -> str:
    """What a value is, for messages."""
    names = {str: "text", list: "a list", dict: "an object", bool: "a truth value", int: "a number", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")
