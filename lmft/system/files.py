"""Files that are at every moment the old one or the new one, whole: after a kill, and after a power cut."""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_ENDING = ".writing"  # of a file that is not in its place yet


def temporary_path(path: Path) -> Path:
    """Where what will take the place of `path` is made: in the same folder, so that the move there is one
    step.
    """
    return path.with_name(f".{path.name}.{os.getpid()}{_ENDING}")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A file to write. It takes the place of `path` when the block ends; if that fails, `path` is left as it
    was.
    """
    temporary = temporary_path(path)
    try:
        with temporary.open("wb") as file:
            yield file
            sync(file)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a file of text (UTF-8)."""
    with atomic_write(path) as file:
        file.write(text.encode())


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes what a process that died was writing in a folder, which no other process may be at. Returns it."""
    litter = list(folder.glob(f".*{_ENDING}"))
    for path in litter:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return litter


def sync(file: BinaryIO) -> None:
    """Forces what was written to a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Forces the names in a folder to the disk: which files there are, and what they are called."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems have no such call for folders
            raise
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, {} if there is no file."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file that at every moment is either the old one or the new one, whole. Infinity and NaN become
    null.
    """
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
