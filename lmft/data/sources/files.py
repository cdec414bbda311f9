"""The user's files: paths and patterns to files, the format of each, and a fingerprint of their
content.
"""

import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from lmft.data.fingerprint import fingerprint as fingerprint_of
from lmft.errors import UserError, did_you_mean

FORMATS = {
    ".txt": "txt",
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
BINARY = ("parquet", "arrow")
MEMO = "fingerprints.json"  # in the cache folder: path -> size and times of change, hash
# Nanoseconds since its last change until a file's hash is remembered: before, it could change again
# without its time of change showing it.
SETTLED = 2_000_000_000


class File(NamedTuple):
    """A file and its format; `label` is its name in messages."""

    path: Path
    format: str
    gzipped: bool
    label: str


def by_extension(path: Path) -> File | None:
    """Return the file, with the format of its extension; None if the extension is unknown."""
    gzipped = path.suffix.lower() == ".gz"
    format = FORMATS.get(Path(path.stem if gzipped else path).suffix.lower())
    return File(path, format, gzipped, str(path)) if format else None


def matching(patterns: str | Sequence[str], option: str, separator: str | None = None) -> list[File]:
    """Return the files that paths and glob patterns name, sorted, each once.

    Args:
        patterns: a path or glob pattern, or several.
        option: their option, for messages.
        separator: the user's document separator; if given, files of unknown extensions are read as text.

    Raises: UserError if a pattern names no file, or a file that cannot be read.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    paths = {path.resolve(): path for pattern in patterns for path in _paths(pattern, option)}
    return [_known(path, option, separator) for path in sorted(paths.values())]


def _paths(pattern: str, option: str) -> list[Path]:
    """Return the files that a path or glob pattern names. Raises: UserError if there is none."""
    path = expanded(pattern)
    where = f"{option}={pattern}"
    if path.is_file():
        return [path]
    if path.is_dir():
        fix = f"{option}='{pattern.rstrip('/')}/*.txt', or data.path={pattern}"
        raise UserError("a folder where files are meant", where, fix)
    matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (takes absolute patterns)
    files = [match for match in matches if match.is_file()]
    if files:
        return files
    if glob.has_magic(pattern):
        raise UserError(f"no file matches '{pattern}'", where, f"a pattern is relative to {Path.cwd()}")
    raise no_such(path, where)


def expanded(path: str) -> Path:
    """Return the path with `~` expanded to the home folder, or as it is if there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises RuntimeError)


def no_such(path: Path, where: str) -> UserError:
    """Return the error for a path that does not exist, with the most similar name in its folder."""
    names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    what = f"no such file or folder: {path}{did_you_mean(path.name, names)}"
    return UserError(what, where, f"a path is relative to {Path.cwd()}")


def _known(path: Path, option: str, separator: str | None = None) -> File:
    """Return the file with its format. Raises: UserError if that is unknown, or not read through
    gzip.
    """
    file = by_extension(path)
    if file is None and separator is not None:
        return File(path, "txt", path.suffix.lower() == ".gz", str(path))
    if file is None:
        fix = "data.document_separator= reads each file as one text; "
        fix += f"known without it: {' '.join(FORMATS)}, also .gz"
        raise UserError(f"'{path}' has no known extension", f"{option}={path}", fix)
    if file.gzipped and file.format in BINARY:
        fix = f"`gunzip {path}`: the format is compressed within"
        raise UserError(
            f"a {file.format} file is not read through gzip: {path}", f"{option}={path}", fix
        )
    return file


def of_split(folder: Path, split: str) -> list[File]:
    """Return the folder's files of a split, sorted.

    Their formats are known, and their names begin with the split's, followed by neither letter nor
    digit.

    Raises: UserError if they have several formats, as these may hold the same text twice.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_of(path.name, split)]
    files = [_known(path, "data.path") for path in paths if by_extension(path)]
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        what = f"split '{split}' has files of several formats: {', '.join(formats)}"
        fix = f"name those of one: data.train or data.validation='{folder}/{split}*.EXT'"
        raise UserError(what, str(folder), fix)
    return files


def _is_of(name: str, split: str) -> bool:
    return name.startswith(split) and not name[len(split) : len(split) + 1].isalnum()


def splits_in(folder: Path) -> list[str]:
    """Return the names of the folder's files of known formats, up to their extension or first hyphen."""
    names = {path.name.split(".")[0].split("-")[0] for path in folder.iterdir() if by_extension(path)}
    return sorted(names)


def pattern_of_all(folder: Path) -> str | None:
    """Return a pattern of all the folder's files of known formats; None if they have several
    extensions.
    """
    if not folder.is_dir():
        return None
    names = [path.name for path in folder.iterdir() if by_extension(path)]
    extensions = {"." + name.partition(".")[2] for name in names}
    return f"{folder}/*{extensions.pop()}" if len(extensions) == 1 else None


def fingerprint(files: Iterable[File], reading: Sequence[str | None], cache_dir: Path) -> str:
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
        stamp = _stamp(file.path)
        entry = known.get(path, {})
        if entry.get("stamp") != stamp:
            entry = {"stamp": stamp, "hash": _content_hash(file)}
            if time.time_ns() - stamp[-1] > SETTLED:
                new[path] = entry
        parts += [file.format, entry["hash"]]
    if new:
        _save_memo(cache_dir / MEMO, known | new)
    return fingerprint_of(parts, reading)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


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


def unreadable(file: File, error: Exception) -> UserError:
    """Return the error for a file that the system or a library cannot read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    kind = "gzip" if file.gzipped else file.format
    what = f"cannot read this {kind} file: {reason}"
    return UserError(what, file.label, "is it damaged, truncated or misnamed?")
