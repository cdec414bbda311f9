"""Give Python's warnings to whoever shows them; imports nothing heavy."""

import types
import warnings
from collections.abc import Callable
from pathlib import Path

Taker = Callable[[str], bool]
"""Given a warning's text, with the library that it is of; returns whether it will be shown."""

_taker: Taker | None = None


def give_to(taker: Taker | None) -> Taker | None:
    """Let a function take the warnings; None: they are shown as usual. Return the one before."""
    global _taker
    before = _taker
    _taker = taker
    return before


def taken(message: object, filename: str) -> bool:
    """Return whether somebody has taken a warning; what `catch_warnings(record=True)` records stays."""
    is_recorded = not isinstance(getattr(warnings, "_showwarnmsg_impl", None), types.FunctionType)
    if _taker is None or is_recorded:
        return False
    return _taker(f"{_source_of(filename)}: {message}")


def _source_of(filename: str) -> str:
    """Return the library of a file, or the file's name."""
    parts = Path(filename).parts
    for folder in ("site-packages", "dist-packages"):
        if folder in parts:
            return Path(parts[parts.index(folder) + 1]).stem
    return Path(filename).name
