"""The user's files: which ones are meant, what format each has, and a fingerprint of their content."""

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
# Ns: a file changed less long ago may change again without its time of change showing it.
SETTLED = 2_000_000_000


class File(NamedTuple):
    """A file and how it is read; `label` is its name in messages."""

    path: Path
    format: str
    gzipped: bool
    label: str


def by_extension(path: Path) -> File | None:
    """The file, with the format that its name's extension tells; None where that is not a known one."""
    gzipped = path.suffix.lower() == ".gz"
    form = FORMATS.get(Path(path.stem if gzipped else path).suffix.lower())
    return File(path, form, gzipped, str(path)) if form else None


def matching(patterns: str | Sequence[str], option: str, separator: str | None = None) -> list[File]:
    """The files that paths and glob patterns name, sorted, each once. Raises UserError if one names none.

    separator: what parts documents, where the user has said it: then a file of any other extension is read as
    text.
    """
    wanted = [patterns] if isinstance(patterns, str) else patterns
    paths = {path.resolve(): path for pattern in wanted for path in _paths(pattern, option)}
    return [_known(path, option, separator) for path in sorted(paths.values())]


def _paths(pattern: str, option: str) -> list[Path]:
    path = expanded(pattern)
    where = f"{option}={pattern}"
    if path.is_file():
        return [path]
    if path.is_dir():
        fix = f"{option}='{pattern.rstrip('/')}/*.txt', or data.path={pattern}"
        raise UserError("a folder where files are meant", where, fix)
    found = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (takes absolute patterns)
    files = [match for match in found if match.is_file()]
    if files:
        return files
    if glob.has_magic(pattern):
        raise UserError(f"no file matches '{pattern}'", where, f"a pattern is relative to {Path.cwd()}")
    raise no_such(path, where)


def expanded(path: str) -> Path:
    """The path with `~` made the home folder, or as it is where there is no such user."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises RuntimeError)


def no_such(path: Path, where: str) -> UserError:
    """What to say of a path that does not exist, with the nearest name beside it."""
    beside = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    what = f"no such file or folder: {path}{did_you_mean(path.name, beside)}"
    return UserError(what, where, f"a path is relative to {Path.cwd()}")


def _known(path: Path, option: str, separator: str | None = None) -> File:
    file = by_extension(path)
    if file is None and separator is not None:
        return File(path, "txt", path.suffix.lower() == ".gz", str(path))
    if file is None:
        fix = f"data.document_separator= reads each file as one text; known without it: {' '.join(FORMATS)}, also .gz"
        raise UserError(f"'{path}' has no known extension", f"{option}={path}", fix)
    if file.gzipped and file.format in BINARY:
        fix = f"`gunzip {path}`: the format is compressed within"
        raise UserError(f"a {file.format} file is not read through gzip: {path}", f"{option}={path}", fix)
    return file


def of_split(folder: Path, split: str) -> list[File]:
    """The folder's files of known formats whose names begin with the split's, followed by neither letter nor
    digit.

    Sorted. Raises UserError where they are of several formats, which may hold the same text twice.
    """
    names = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_of(path.name, split)]
    files = [_known(path, "data.path") for path in names if by_extension(path)]
    formats = sorted({file.format for file in files})
    if len(formats) > 1:
        what = f"split '{split}' has files of several formats: {', '.join(formats)}"
        raise UserError(
            what, str(folder), f"name those of one: data.train or data.validation='{folder}/{split}*.EXT'"
        )
    return files


def _is_of(name: str, split: str) -> bool:
    return name.startswith(split) and not name[len(split) : len(split) + 1].isalnum()


def splits_in(folder: Path) -> list[str]:
    """What the folder's files of known formats are named before their extension or first number."""
    names = {path.name.split(".")[0].split("-")[0] for path in folder.iterdir() if by_extension(path)}
    return sorted(names)


def pattern_of_all(folder: Path) -> str | None:
    """A pattern that names a folder's files of known formats, where all have one extension; else None."""
    if not folder.is_dir():
        return None
    names = [path.name for path in folder.iterdir() if by_extension(path)]
    extensions = {"." + name.partition(".")[2] for name in names}
    return f"{folder}/*{extensions.pop()}" if len(extensions) == 1 else None


def fingerprint(files: Iterable[File], reading: Sequence[str | None], cache_dir: Path) -> str:
    """Changes with the files' content, order and formats, and with `reading` (how they are read); not with
    their names.

    A hash, once computed, is remembered in `cache_dir` until the file's size or time of change differs.
    """
    known = _load_memo(cache_dir / MEMO)
    fresh, parts = {}, []
    for file in files:
        path, stamp = str(file.path.resolve()), _stamp(file.path)
        remembered = known.get(path, {})
        if remembered.get("stamp") != stamp:
            remembered = {"stamp": stamp, "hash": _content_hash(file)}
            if time.time_ns() - stamp[-1] > SETTLED:
                fresh[path] = remembered
        parts += [file.format, remembered["hash"]]
    if fresh:
        _save_memo(cache_dir / MEMO, known | fresh)
    return hashlib.blake2b(json.dumps([parts, reading]).encode(), digest_size=16).hexdigest()


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
    """What is remembered; nothing if the memo is missing or corrupt, for it can be computed again."""
    try:
        memo = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    entries = memo.items() if isinstance(memo, dict) else ()
    return {
        key: entry for key, entry in entries if isinstance(entry, dict) and isinstance(entry.get("hash"), str)
    }


def _save_memo(path: Path, memo: dict[str, dict]) -> None:
    """Replaces the memo whole; where that cannot be written, the next run computes again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as new:
            json.dump(memo, new)
        Path(new.name).replace(path)


def unreadable(file: File, error: Exception) -> UserError:
    """What to say of a file that the system or a library cannot read."""
    reason = " ".join(str(error).split()) or type(error).__name__
    kind = "gzip" if file.gzipped else file.format
    return UserError(
        f"cannot read this {kind} file: {reason}", file.label, "is it damaged, cut short or misnamed?"
    )
