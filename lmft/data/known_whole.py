"""Large stores whose checksums were compared: remembered, since reading all of one takes minutes."""

import json
from contextlib import suppress
from pathlib import Path

from lmft.system.files import stamp_of, write_json

_LARGE = 1 << 28  # bytes of a store; a smaller one is read whole each time it is opened
_ENDING = ".whole"  # of the file beside a store: name of a file → its size and times of change


def is_known_whole(folder: Path) -> bool:
    """Return whether a store is large, and none of its files has changed since they were compared."""
    stamps = _stamps(folder)
    try:
        return _is_large(stamps) and json.loads(_memo(folder).read_bytes()) == stamps
    except (OSError, ValueError):
        return False


def remember_whole(folder: Path) -> None:
    """Remember that a large store is whole; if that cannot be written, it will be read again."""
    stamps = _stamps(folder)
    if _is_large(stamps):
        with suppress(OSError):
            write_json(_memo(folder), stamps)


def _memo(folder: Path) -> Path:
    return folder.with_name(folder.name + _ENDING)


def _stamps(folder: Path) -> dict[str, list[int]]:
    return {path.name: stamp_of(path) for path in sorted(folder.iterdir())}


def _is_large(stamps: dict[str, list[int]]) -> bool:
    return sum(size for size, *_ in stamps.values()) >= _LARGE
