"""Tokenizers in the cache, each made once from the options and the text that it depends on."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from lmft.system.cache import built_once

log = logging.getLogger(__name__)
_CHECKSUM = "tokenizer.json.xxh3"
_FORMAT = 2  # of the cache's tokenizers; those of an earlier one are made again


def cached(cache: Path, name: str, made_from: Mapping[str, Any], save: Callable[[Path], None]) -> Path:
    """Return the folder of a tokenizer; make it if the cache has no undamaged one.

    Args:
        cache: folder of the cache.
        name: the beginning of the folder's name.
        made_from: everything that the tokenizer depends on, as JSON can write it.
        save: saves the tokenizer into a folder.

    Raises: UserError if the cache cannot be written to, and the errors of `save`.
    """

    def build(folder: Path) -> None:
        save(folder)
        (folder / _CHECKSUM).write_text(_checksum(folder))

    def warn_of(damage: str) -> None:
        log.warning("a vocabulary in the cache is damaged and is made again (%s)", damage)

    key = xxhash.xxh3_128_hexdigest(json.dumps([_FORMAT, made_from], sort_keys=True).encode())
    folder = cache / "tokenizers" / f"{name}-{key}"
    return built_once(folder, build=build, damage=_damage, warn=warn_of)


def _damage(folder: Path) -> str | None:
    """Return what is wrong with a cached tokenizer's files; None if nothing is."""
    checksum = folder / _CHECKSUM
    if not checksum.is_file() or not (folder / "tokenizer.json").is_file():
        return f"{folder}: files are missing"
    if checksum.read_text() != _checksum(folder):
        return f"{folder / 'tokenizer.json'}: it is not what was written"
    return None


def _checksum(folder: Path) -> str:
    return xxhash.xxh3_64_hexdigest((folder / "tokenizer.json").read_bytes())
