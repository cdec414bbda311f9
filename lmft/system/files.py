"""Atomic file writes: after a kill or a power cut a file is the old one or the new one, complete."""

import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

_ENDING = ".writing"  # suffix of temporary files


def temporary_path(path: Path) -> Path:
    """Return a temporary path in the folder of `path`, so that the final rename is atomic."""
    return path.with_name(f".{path.name}.{os.getpid()}{_ENDING}")


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an error."""
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
    """Write a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete the temporary files of crashed processes and return their paths. Hold the folder's lock."""
    leftovers = list(folder.glob(f".*{_ENDING}"))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return leftovers


def sync(file: BinaryIO) -> None:
    """Flush a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (its file names) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def stamp_of(path: Path) -> list[int]:
    """Return what tells that a file was changed: its size, and the times of its changes (ns)."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file. libyaml reads it, where PyYAML has it: ten times as fast."""
    return yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if the file does not exist."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically. Infinity and NaN become null."""
    write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_line(content: Mapping[str, Any]) -> bytes:
    """Return an object as a line of JSON. Infinity and NaN become null."""
    return (json.dumps(finite(content), ensure_ascii=False, allow_nan=False) + "\n").encode(
        "utf-8", "surrogatepass"
    )


def finite(value: Any) -> Any:
    """Return plain data with null for infinity and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
