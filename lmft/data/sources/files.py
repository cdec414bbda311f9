"""The user's files: paths, patterns and folders to files, and the format of each."""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lmft.data.sources import opening, standard_input
from lmft.data.sources.encoding_advice import advice_for
from lmft.data.sources.opening import COMPRESSIONS, File, extension_of, kind_of
from lmft.data.sources.remote import copied, without_query
from lmft.data.sources.saved_datasets import is_saved_dataset, saved_files, saved_splits
from lmft.errors import UserError, did_you_mean
from lmft.system.urls import path_of, storage_of

FORMATS = {
    ".txt": "txt",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
BINARY = ("parquet", "arrow")
ARCHIVE = ".zip"


class Found(NamedTuple):
    """Files, and what is to be told about them: kinds, and what was skipped."""

    files: list[File]
    notes: list[str]


def by_extension(path: Path) -> File | None:
    """Return the file, with the format of its extension; None if the extension is unknown."""
    compression = COMPRESSIONS.get(path.suffix.lower())
    format = FORMATS.get(extension_of(path.name))
    return File(path, format, str(path), compression) if format else None


def matching(patterns: str | Sequence[str], option: str, format: str | None, cache_dir: Path) -> Found:
    """Return the files that paths, folders, glob patterns, URLs and `-` (standard input) name, sorted,
    each once.

    In folders, in archives, and among the matches of a pattern, hidden files and files that are not text
    are skipped and counted.

    Args:
        patterns: a path, folder, glob pattern, URL of other storage (s3://…) or `-`, or several.
        option: their option, for messages.
        format: the format of all files; None: that of their extensions, plain text if unknown.
        cache_dir: where standard input, and files of other storage, are copied to.

    Raises: UserError if a pattern names no file, or a file that cannot be read.
    """
    if isinstance(patterns, str):
        patterns = [patterns]
    found: dict[tuple[Path, str | None], File] = {}
    notes: list[str] = []
    for pattern in patterns:
        files, more = _found(pattern, option, format, cache_dir)
        notes += more
        for file in files:
            found.setdefault((file.path.resolve(), file.member), file)
    files = sorted(found.values(), key=lambda file: (file.path, file.member or ""))
    if all(is_saved_dataset(file.path.parent) for file in files):
        files = list(found.values())  # in the order of the data set
    return Found(files, notes)


def _found(pattern: str, option: str, format: str | None, cache_dir: Path) -> Found:
    """Return the files that one pattern names. Raises: UserError if there is none."""
    if pattern == standard_input.NAME:
        copy = standard_input.copy_of_standard_input(cache_dir)
        return Found([_standard_input(copy, format)], [])
    where = f"{option}={without_query(pattern)}"
    if storage_of(pattern) is not None:
        return _copied(pattern, where, format, cache_dir)
    path = expanded(pattern)
    if path.is_file() and path.suffix.lower() == ARCHIVE:
        hidden: Counter[str] = Counter()
        return _sorted_out(_in_archive(path, hidden), hidden, pattern, where, format)
    if path.is_file():
        return Found([_explicit(path, where, format)], [])
    if path.is_dir():
        return _in_folder(path, option, where, format)
    matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (takes absolute patterns)
    skipped: Counter[str] = Counter()
    files = list(_each(sorted(matches), skipped))
    if "**" in pattern:
        del skipped["folders"]  # which it enters
    if files:
        return _sorted_out(files, skipped, pattern, where, format)
    if glob.has_magic(pattern):
        raise UserError(f"no file matches '{pattern}'", where, f"a pattern is relative to {Path.cwd()}")
    raise no_such(path, where)


def _copied(url: str, where: str, format: str | None, cache_dir: Path) -> Found:
    """Return copies of the files on other storage that a URL names; their labels are URLs."""
    copies, told = copied(url, where, cache_dir)
    skipped: Counter[str] = Counter()
    files = [
        file._replace(label=file.label.replace(str(copy.path), copy.url, 1))
        for copy in copies
        for file in _each([copy.path], skipped)
    ]
    found = _sorted_out(files, skipped, without_query(url), where, format)
    return Found(found.files, [*found.notes, told])


def _standard_input(copy: Path, format: str | None) -> File:
    """Return standard input as a file; without a format, it is JSON if it begins with an object."""
    if format is None:
        head = opening.beginning(File(copy, "txt", "standard input")).lstrip()
        format = "json" if head.startswith((b"{", b"[{")) else "txt"
    return File(copy, format, "standard input")


def _explicit(path: Path, where: str, format: str | None) -> File:
    """Return a file that was named. Raises: UserError if it is not text, or not read as it is
    compressed.
    """
    file = _candidate(path)
    if format:
        return file._replace(format=format)
    if not file.format:
        kind = kind_of(opening.beginning(file))
        if kind and kind.extension is None:
            what = f"this is not text but a {kind.name}: {path}"
            raise UserError(what, where, advice_for(kind))
    return _readable(file, where)


def _readable(file: File, where: str) -> File:
    """Return a file with its format, plain text if unknown. Raises: UserError if it is not read through
    a compression.
    """
    if file.compression and file.format in BINARY:
        fix = f"decompress {file.label}: the format is compressed within"
        what = f"a {file.format} file is not read through {file.compression}: {file.label}"
        raise UserError(what, where, fix)
    return file._replace(format=file.format or "txt")


def _candidate(path: Path, member: str | None = None) -> File:
    """Return the file, or the member of an archive, with an empty format if its extension is unknown."""
    name = path if member is None else Path(member)
    label = str(path) if member is None else f"{path}:{member}"
    compression = COMPRESSIONS.get(name.suffix.lower())
    return File(path, FORMATS.get(extension_of(name.name), ""), label, compression, member)


def _in_folder(folder: Path, option: str, where: str, format: str | None) -> Found:
    splits = saved_splits(folder)
    if splits is not None:
        split = option.removeprefix("data.")
        what = f"a saved data set with the splits {', '.join(splits)}"
        fix = f"data.path={folder} data.splits.{split}=NAME, or {option}={folder}/NAME"
        raise UserError(what, where, fix)
    if is_saved_dataset(folder):
        return Found(saved_files(folder), [])
    skipped: Counter[str] = Counter()
    files = list(_walk(folder, skipped))
    return _sorted_out(files, skipped, str(folder), where, format)


def _walk(folder: Path, skipped: Counter[str]) -> Iterator[File]:
    """Yield all files below a folder, those of zip archives too; count what is hidden."""
    entered = set()
    for root, subfolders, names in os.walk(folder, followlinks=True):
        entered.add(Path(root).resolve())
        visible = [name for name in subfolders if not name.startswith(".")]
        skipped["hidden"] += len(subfolders) - len(visible)
        # A link may lead back to a folder above it.
        subfolders[:] = sorted(name for name in visible if Path(root, name).resolve() not in entered)
        shown = [name for name in sorted(names) if not name.startswith(".")]
        skipped["hidden"] += len(names) - len(shown)
        yield from _each((Path(root, name) for name in shown), skipped)


def _each(paths: Iterable[Path], skipped: Counter[str]) -> Iterator[File]:
    """Yield the files that the paths name, those in zip archives too; count what is not a file."""
    for path in paths:
        if path.is_dir():
            skipped["folders"] += 1
        elif not path.is_file():
            skipped["broken links"] += 1
        elif path.suffix.lower() == ARCHIVE:
            yield from _in_archive(path, skipped)
        else:
            yield _candidate(path)


def _in_archive(path: Path, skipped: Counter[str]) -> list[File]:
    """Return the files of a zip archive; count what is hidden."""
    files = []
    for member in opening.members(path):
        parts = Path(member).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            skipped["hidden"] += 1
        else:
            files.append(_candidate(path, member))
    return files


def _sorted_out(
    candidates: list[File], skipped: Counter[str], pattern: str, where: str, format: str | None
) -> Found:
    """Return the candidates that are text, or have a format that is read; count the others.

    Raises: UserError if nothing is left.
    """
    files = []
    kinds: Counter[str] = Counter()
    for file in candidates:
        name = file.extension or "no extension"
        if format:
            file = file._replace(format=format)
        elif not file.format and kind_of(opening.beginning(file)):
            skipped[f"no text ({name})"] += 1
            continue
        files.append(_readable(file, where))
        kinds[name] += 1
    left_out = f"; skipped: {_listed(skipped)}" if skipped.total() else ""
    if not files:
        raise UserError(f"no text file in '{pattern}'{left_out}", where, "name another folder")
    return Found(files, [f"{pattern}: {len(files)} files ({_listed(kinds)}){left_out}"])


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count)


def expanded(path: str) -> Path:
    """Return the path with `~` expanded to the home folder, or as it is if there is no such user.

    A `file://` URL is a path as well.
    """
    return Path(os.path.expanduser(path_of(path)))  # noqa: PTH111 (Path.expanduser raises RuntimeError)


def no_such(path: Path, where: str) -> UserError:
    """Return the error for a path that does not exist, with the most similar name in its folder."""
    names = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
    what = f"no such file or folder: {path}{did_you_mean(path.name, names)}"
    return UserError(what, where, f"a path is relative to {Path.cwd()}")


def of_split(folder: Path, split: str) -> list[File]:
    """Return the folder's files of a split, sorted.

    Their formats are known, and their names begin with the split's, followed by neither letter nor
    digit.

    Raises: UserError if they have several formats, as these may hold the same text twice.
    """
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_of(path.name, split)]
    files = [_readable(_candidate(path), f"data.path={folder}") for path in paths if by_extension(path)]
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
    if not folder.is_dir() or saved_splits(folder) is not None:
        return None
    names = [path.name for path in folder.iterdir() if by_extension(path)]
    extensions = {"." + name.partition(".")[2] for name in names}
    return f"{folder}/*{extensions.pop()}" if len(extensions) == 1 else None
