"""Times and numbers of tokens, as they are typed."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

DURATION = "a time, DD:HH:MM:SS or {hours: 1, minutes: 30}"
"""What a time has to be, in words."""

_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9, "t": 10**12}


def is_number(value: Any) -> bool:
    """Return whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def duration(value: Any) -> timedelta | None:
    """Return a time above 0 that is written as Lightning reads it; None if it is none.

    value: DD:HH:MM:SS, or a mapping of units such as hours and minutes.
    """
    if isinstance(value, str):
        if re.fullmatch(r"\d+(:\d\d){3}", value) is None:
            return None
        value = dict(
            zip(("days", "hours", "minutes", "seconds"), map(int, value.split(":")), strict=True)
        )
    if not isinstance(value, Mapping) or not all(map(is_number, value.values())):
        return None
    try:
        found = timedelta(**{str(unit): amount for unit, amount in value.items()})
    except (TypeError, OverflowError):  # an unknown unit; too long for a timedelta
        return None
    return found if found > timedelta(0) else None


def number_of_tokens(value: Any) -> int:
    """Return a number of tokens: 10M, 1.5G, 20000. Raises: ValueError."""
    written = str(value).strip().lower().replace("_", "")
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*([kmgbt]?)", written)
    if match is None or isinstance(value, bool):
        raise ValueError(f"{value} is not a number of tokens")
    return round(float(match[1]) * _THOUSANDS[match[2]])
