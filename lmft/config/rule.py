"""Rule: options that have an effect only under a condition."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """Options that have an effect only under a condition."""

    keys: tuple[str, ...]
    """Options, or groups of options."""
    holds: Callable[[Config], bool]
    """The condition on the composed config."""
    needs: str
    """The condition in words: `KEY needs …`."""
    fix: str
    """What to type instead."""


def is_local(name_or_path: Any) -> bool:
    """Return whether a value names a file or folder here, not a repository of the hub."""
    return bool(name_or_path) and Path(str(name_or_path)).expanduser().exists()
