"""Removed: which of a store's documents are left out, and why; kept in the cache with the stores."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import xxhash

from lmft.system.cache import built_once

log = logging.getLogger(__name__)
REASONS = ("copies", "near copies", "shares text with validation")
COPY = 1  # the number of a reason is its place among them, from 1; a document that is kept has 0
NEAR_COPY = 2
SHARED = 3
_REASONS = "reasons.bin"  # uint8 [M], of each document of the store
_META = "removed.json"


@dataclass(frozen=True)
class Removed:
    """The documents of a store that are left out."""

    folder: Path

    def reasons(self, first: int, stop: int) -> np.ndarray:
        """Return why documents from `first` to before `stop` are left out. [stop − first] uint8"""
        return np.fromfile(self.folder / _REASONS, np.uint8, stop - first, offset=first)

    @cached_property
    def checksum(self) -> str:
        """Checksum of the reasons of all documents."""
        return json.loads((self.folder / _META).read_bytes())["checksum"]


def removed_once(folder: Path, find: Callable[[], np.ndarray]) -> Removed:
    """Return what is left out of a store; find it if it is not in the cache.

    find: returns the reason of each document of the store. [M] uint8
    """

    def build(into: Path) -> None:
        reasons = find()
        reasons.tofile(into / _REASONS)
        meta = {"checksum": xxhash.xxh3_64_hexdigest(reasons.data)}
        (into / _META).write_text(json.dumps(meta))

    def warn(damage: str) -> None:
        log.warning("the cached list of removed documents is damaged and is made again (%s)", damage)

    return Removed(built_once(folder, build=build, damage=_damage, warn=warn))


def _damage(folder: Path) -> str | None:
    try:
        expected = json.loads((folder / _META).read_bytes())["checksum"]
        actual = xxhash.xxh3_64_hexdigest((folder / _REASONS).read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{folder.name}: {error}"
    if actual != expected:
        return f"{folder.name}/{_REASONS}: checksum {actual}, not {expected}"
    return None
