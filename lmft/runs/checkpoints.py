"""A run's checkpoint files: what they are called, which are whole, which one comes next, and which may go.

checkpoints/  step=N.ckpt, and last.ckpt and best.ckpt, further names of two of them; beside each its NAME.ckpt.xxh3

A checkpoint is valid if its checksum file holds the checksum of its content. While a file is replaced its
checksum file holds both, the old one and the new one, so that whatever is in its place when the process dies
is valid.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from lmft.system import files

LAST, BEST = "last.ckpt", "best.ckpt"

_STEP = re.compile(r"step=(\d+)\.ckpt")
_GB = 10**9  # bytes


def checksum(path: Path) -> str:
    """xxh3 of a file's content."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def checksum_file(path: Path) -> Path:
    """Where a checkpoint's checksum stands."""
    return path.with_name(path.name + ".xxh3")


def why_invalid(path: Path, checksums: dict[tuple[int, int], str] | None = None) -> str | None:
    """What is wrong with a checkpoint; None if it is valid.

    checksums: by device and inode, what was found earlier; a file of several names is read once.
    """
    checksums = {} if checksums is None else checksums
    try:
        expected = _recorded(path)
        if not expected:
            return "it has no checksum"
        status = path.stat()
        inode = (status.st_dev, status.st_ino)
        if inode not in checksums:
            checksums[inode] = checksum(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    found = checksums[inode]
    return None if found in expected else f"its checksum is {found}, not {expected[-1]}"


def is_valid(path: Path) -> bool:
    """Whether a checkpoint's content is what its checksum file says."""
    return why_invalid(path) is None


def checkpoints_by_step(folder: Path) -> list[Path]:
    """The files step=N.ckpt of a run, fewest steps first."""
    found = [(_STEP.fullmatch(path.name), path) for path in folder.glob("step=*.ckpt")]
    return [
        path for _, path in sorted((int(match[1]), path) for match, path in found if match and path.is_file())
    ]


def checkpoints_by_age(folder: Path) -> list[Path]:
    """The same, oldest first.

    Those of more steps than last.ckpt count as older than all others: the run went back to an earlier step
    and gave them up.
    """
    steps = checkpoints_by_step(folder)
    last = _recorded(folder / LAST)[-1:]
    place = next(
        (place for place, path in enumerate(steps) if last and _recorded(path)[-1:] == last), len(steps)
    )
    return [*steps[place + 1 :], *steps[: place + 1]]


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """Where a run goes on: last.ckpt, or where that is not valid the newest step=N.ckpt that is.

    best.ckpt is none of them, since it may lie within a step. Returns also what is wrong with each that was
    passed over, a line each. Reads the files it looks at, once each.
    """
    checksums: dict[tuple[int, int], str] = {}
    wrong: list[str] = []
    last = folder / LAST
    for path in [*([last] if last.exists() else []), *reversed(checkpoints_by_age(folder))]:
        found = why_invalid(path, checksums)
        if found is None:
            return path, wrong
        wrong.append(f"{path.name} is broken ({found})")
    return None, wrong


@contextmanager
def recording_checksum(target: Path, digest: str) -> Iterator[None]:
    """For the block that moves a file with this checksum to its place: before it, amid it and after it all is
    valid.
    """
    before = _recorded(target)
    files.write_text(checksum_file(target), "\n".join([*before, digest]))
    yield
    if before:
        files.write_text(checksum_file(target), digest)


def link_as(path: Path, name: str) -> None:
    """Gives a checkpoint a further name in its folder: a hard link, or a copy where the file system has none."""
    target = path.with_name(name)
    temporary = files.temporary_path(target)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            with path.open("rb") as source, temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 24)
                files.sync(copy)
        with recording_checksum(target, _recorded(path)[-1]):
            temporary.replace(target)
            files.sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)  # a move between two names of one file leaves both


def prune(folder: Path, keep_last: int, max_disk_gb: float | None = None) -> list[Path]:
    """Removes old files step=N.ckpt, and no others. The newest always stays, and so does what best.ckpt
    holds.

    Args:
        folder: checkpoints/ of a run. If it is a link to outside the run's folder nothing is removed.
        keep_last: how many of the newest stay; -1: all.
        max_disk_gb: gigabytes (10**9 bytes) that the folder's checkpoints may take together.

    Returns what was removed.
    """
    by_age = _removable(folder)
    surplus = by_age[: max(len(by_age) - max(keep_last, 1), 0)] if keep_last >= 0 else []
    for path in surplus:
        _remove(path)
    removed = list(surplus)
    for path in by_age[len(surplus) : -1]:
        if max_disk_gb is None or disk_usage(folder) <= max_disk_gb * _GB:
            break
        if not _is_same(path, folder / BEST):  # that would free nothing
            _remove(path)
            removed.append(path)
    return removed


def make_room(folder: Path) -> list[Path]:
    """Removes every step=N.ckpt but the newest valid one and the best; none if no valid one is left. Returns
    them.
    """
    kept, _ = newest_valid(folder)
    if kept is None:
        return []
    old = [
        path for path in _removable(folder) if not _is_same(path, kept) and not _is_same(path, folder / BEST)
    ]
    for path in old:
        _remove(path)
    return old


def remove_leftovers(folder: Path) -> list[Path]:
    """Removes what a process that died left half-written in a run's checkpoints/. Returns it."""
    if not _is_own(folder):
        return []
    orphans = [path for path in folder.glob("*.ckpt.xxh3") if not path.with_suffix("").exists()]
    for path in orphans:
        path.unlink()
    return [*files.remove_leftovers(folder), *orphans]


def disk_usage(folder: Path) -> int:
    """Bytes that a folder's checkpoints take; a file of several names counts once."""
    statuses = [path.lstat() for path in folder.glob("*.ckpt")]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in statuses}.values())


def _recorded(path: Path) -> list[str]:
    """What a checkpoint's checksum file says: one checksum, or two while the checkpoint is replaced."""
    try:
        return checksum_file(path).read_text("ascii", "replace").split()
    except FileNotFoundError:
        return []


def _is_own(folder: Path) -> bool:
    return folder.is_dir() and folder.resolve().parent == folder.parent.resolve()


def _removable(folder: Path) -> list[Path]:
    return checkpoints_by_age(folder) if _is_own(folder) else []


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def _remove(path: Path) -> None:
    path.unlink()
    checksum_file(path).unlink(missing_ok=True)
