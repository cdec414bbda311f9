"""Fingerprint of files by their content; hashes are remembered until a file changes."""

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmft.data.fingerprint import fingerprint as fingerprint_of
from lmft.data.sources.opening import File, unreadable
from lmft.system.files import stamp_of

VERSION = 3  # of what the readers make of a file; a change makes new token stores
MEMO = "fingerprints.json"  # in the cache folder: path -> size and times of change, hash
# Nanoseconds since its last change until a file's hash is remembered: before, it could change again
# without its time of change showing it.
SETTLED = 2_000_000_000


def fingerprint(files: Iterable[File], reading: Any, cache_dir: Path) -> str:
    """Return the fingerprint of files: it changes with their content, order and formats, not their
    names.

    It also changes with `reading`, the settings they are read with. A file's hash is remembered in
    `cache_dir` until its size or time of change differs.
    """
    known = _load_memo(cache_dir / MEMO)
    new = {}
    parts = []
    for file in files:
        path = str(file.path.resolve())
        stamp = stamp_of(file.path)
        if known.get(path, {}).get("stamp") != stamp:
            known[path] = {"stamp": stamp, "hash": _content_hash(file)}
            if time.time_ns() - stamp[-1] > SETTLED:
                new[path] = known[path]
        parts += [file.format, file.member, known[path]["hash"]]
    if new:
        _save_memo(cache_dir / MEMO, _load_memo(cache_dir / MEMO) | new)
    return fingerprint_of(VERSION, parts, reading)


def _content_hash(file: File) -> str:
    try:
        with file.path.open("rb") as content:
            return hashlib.file_digest(content, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise unreadable(file, error) from error


def _load_memo(path: Path) -> dict[str, dict]:
    """Return the remembered hashes; none if the memo is missing or corrupt, as they can be computed
    again.
    """
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = memo.items() if isinstance(memo, dict) else ()
    return {
        key: entry
        for key, entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("hash"), str)
    }


def _save_memo(path: Path, memo: dict[str, dict]) -> None:
    """Replace the memo atomically; if it cannot be written, the next run computes the hashes again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as new:
            json.dump(memo, new)
        Path(new.name).replace(path)
