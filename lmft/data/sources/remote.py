"""Files on other storage, such as s3://BUCKET/FILE, copied into the cache by the library fsspec.

They are copied since a text is read several times: to hash it, to find the parts that processes tokenise
at the same time, and to tokenise it.
"""

import glob
import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lmft.data.fingerprint import fingerprint
from lmft.errors import UserError
from lmft.reporting.facts import in_bytes
from lmft.reporting.phase import phase
from lmft.system.cache import built_once
from lmft.system.urls import storage_of

log = logging.getLogger(__name__)
FOLDER = "copies"  # in the cache: storage, path there, version, and the file in it
# What storages call that which tells one version of a file from another, in a listing and by itself.
_IDENTITIES = ("etag", "generation", "md5hash", "contentmd5", "digest", "blobid")
_TIMES = ("lastmodified", "mtime", "modified", "updated", "created")
_SAVED = ("state.json", "dataset_info.json", "dataset_dict.json")  # of `datasets`' save_to_disk


class Copy(NamedTuple):
    """A copy of a file on other storage."""

    path: Path
    url: str  # of the file, without a query, which may hold a secret


class _Remote(NamedTuple):
    name: str  # on its storage
    size: int | None
    has_version: bool
    copy: Copy


def copied(url: str, where: str, cache_dir: Path) -> tuple[list[Copy], str]:
    """Copy what a URL names, a file, a folder or a pattern, into the cache, in the order of the URLs.

    A file is copied once, and again if its size, version, checksum or time of change is another one.

    Args:
        url: the URL.
        where: the option that names it, for messages.
        cache_dir: the folder of the cache.

    Returns: the copies, and a line that tells how many bytes they have.

    Raises: UserError if the storage cannot be read, there is no such file, or too little space.
    """
    with _errors(url, where):
        system = _system_of(url)
        files = _remotes(system, url, cache_dir / FOLDER)
    if not files:
        fix = f"a file, a folder or a pattern of {storage_of(url)}://; is its name right?"
        raise UserError(f"no file matches '{without_query(url)}'", where, fix)
    if len(files) > 1 and any(PurePosixPath(file.copy.url).name in _SAVED for file in files):
        what = "a folder written by save_to_disk can only be read from a disk"
        raise UserError(what, where, f"name its files: {without_query(url).rstrip('/*')}/*.arrow")
    missing = [file for file in files if not file.copy.path.exists()]
    _check_space(sum(file.size or 0 for file in missing), where, cache_dir)
    doing = f"copying {_count(missing)} from {storage_of(url)}://"
    with phase(doing) if missing else nullcontext():
        for file in files:
            with _errors(file.copy.url, where):
                _copy(system, file)
    return [file.copy for file in files], _told(url, files, cache_dir / FOLDER)


def _told(url: str, files: list[_Remote], folder: Path) -> str:
    num_bytes = sum(file.copy.path.stat().st_size for file in files)
    told = f"{without_query(url)}: {len(files)} files, {in_bytes(num_bytes)}, copied into {folder}"
    if not all(file.has_version for file in files):
        told += "; the storage tells only sizes: delete the copies if a file changes and keeps its size"
    return told


def _count(files: list[_Remote]) -> str:
    sizes = [file.size for file in files]
    known = [size for size in sizes if size is not None]
    return f"{len(files)} files, {in_bytes(sum(known))}" if known == sizes else f"{len(files)} files"


def without_query(url: str) -> str:
    """Return a URL for messages: a query of the web may hold a secret."""
    return url.partition("?")[0] if storage_of(url) in ("http", "https") else url


def _system_of(url: str) -> Any:
    import fsspec

    system, _ = fsspec.core.url_to_fs(url)
    return system


def _remotes(system: Any, url: str, folder: Path) -> list[_Remote]:
    """Return the files that a URL names, with the places of their copies, in the order of their URLs."""
    named = system._strip_protocol(url)
    info = _info(system, named)
    if info is not None and info["type"] == "file":
        found = {named: info}
    elif glob.has_magic(named):
        found = system.glob(named, detail=True)
    else:
        found = {} if info is None else system.find(named, detail=True)
    scheme = str(storage_of(url))
    files = [
        _Remote(name, info.get("size"), _version(info) is not None, _copy_of(name, info, scheme, folder))
        for name, info in found.items()
        if info["type"] == "file" and not _is_hidden(name, named)
    ]
    return sorted(files, key=lambda file: file.copy.path)


def _info(system: Any, name: str) -> Mapping[str, Any] | None:
    """Return what a storage tells of a file or folder; None: there is none."""
    try:
        return system.info(name)
    except FileNotFoundError:
        return None


def _is_hidden(name: str, named: str) -> bool:
    """Return whether a file found in a folder is hidden, or is in a hidden folder of it."""
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") for part in parts[len(PurePosixPath(named).parts) :])


def _copy_of(name: str, info: Mapping[str, Any], scheme: str, folder: Path) -> Copy:
    """Return where a file's copy is, or will be. Files of one folder sort as their URLs do."""
    path, _, query = name.partition("?") if scheme in ("http", "https") else (name, "", "")
    path = path.removeprefix(f"{scheme}://").lstrip("/")
    version = fingerprint(info.get("size"), _version(info), query)[:16]
    # Parts such as ".." would leave the folder.
    parts = [part for part in path.split("/") if part.strip(".")]
    copy = folder.joinpath(scheme, *parts, version, parts[-1])
    return Copy(copy, f"{scheme}://{path}")


def _version(info: Mapping[str, Any]) -> str | None:
    """Return what tells the version of a file; None if its storage tells nothing but its size."""
    told = {re.sub("[-_]", "", key).lower(): value for key, value in info.items() if value is not None}
    for name in (*_IDENTITIES, *_TIMES):
        if name in told:
            value = told[name]
            return str(value.timestamp() if isinstance(value, datetime) else value)
    return None


def _check_space(num_bytes: int, where: str, cache_dir: Path) -> None:
    """Raise UserError if copies take more bytes than are free."""
    existing = next(folder for folder in (cache_dir, *cache_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        what = f"the copies take {in_bytes(num_bytes)}, and {in_bytes(free)} are free in {cache_dir}"
        raise UserError(what, where, "data.cache_dir=FOLDER of a larger disk, or fewer files")


def _copy(system: Any, file: _Remote) -> None:
    path = file.copy.path

    def build(folder: Path) -> None:
        system.get_file(file.name, str(folder / path.name))
        if wrong := damage(folder):
            raise EOFError(wrong)

    def damage(folder: Path) -> str | None:
        size = (folder / path.name).stat().st_size
        if file.size is None or size == file.size:
            return None
        return f"{size:,} of {file.size:,} bytes of {file.copy.url}"

    built_once(path.parent, build=build, damage=damage, warn=log.warning)


@contextmanager
def _errors(url: str, where: str) -> Iterator[None]:
    """Context manager: turn what the libraries of storages raise, each its own, into UserErrors."""
    storage = storage_of(url)
    try:
        yield
    except UserError:
        raise
    except ImportError as error:
        what = f"{storage}:// needs another package: {_reason(error)}"
        raise UserError(what, where, "install the package that it names") from error
    except Exception as error:
        what = f"cannot read from {storage}://: {_reason(error)}"
        fix = "are its name and your credentials right? is it reachable from here?"
        raise UserError(what, where, fix) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
