"""A run's checkpoint files: names, checksums, the newest valid one, and which may be deleted.

checkpoints/  step=N.ckpt; last.ckpt and best.ckpt are hard links to two of them
              NAME.ckpt.xxh3 for each
              CHECKSUM.part: what one of several devices has saved of the checkpoints that list it

A checkpoint is valid if its checksum file holds the checksum of its content, and the names of its parts,
if it has any, are their checksums. While a file is replaced, its checksum file has a line for the old
and one for the new content, so that a crash at any point leaves a valid pair. A part that no checksum
file lists any more is deleted.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from lmft.system import files

LAST = "last.ckpt"
BEST = "best.ckpt"
EXPORTED_NAME = "exported"
EXPORTED = f"{EXPORTED_NAME}.ckpt"  # the weights of a failed export, if no other checkpoint has them

_STEP = re.compile(r"step=(\d+)\.ckpt")
_PART = ".part"
_GB = 10**9  # bytes


def checksum(path: Path) -> str:
    """Return the xxh3 of a file's content."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def checksum_file(path: Path) -> Path:
    """Return the path of a checkpoint's checksum file."""
    return path.with_name(path.name + ".xxh3")


def part_file(folder: Path, name: str) -> Path:
    """Return the path of a checkpoint's part."""
    return folder / f"{name}{_PART}"


def why_invalid(path: Path, checksums: dict[tuple[int, int], str] | None = None) -> str | None:
    """Return what is wrong with a checkpoint; None if it is valid.

    checksums: checksums computed so far, by device and inode; a file with several names is read once.
    """
    if checksums is None:
        checksums = {}
    try:
        expected = _recorded(path)
        if not expected:
            return "it has no checksum"
        actual = _checksum_once(path, checksums)
        for line in expected:
            digest, *parts = line.split()
            if digest == actual:
                return _why_parts_are_invalid(path, parts, checksums)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return f"its checksum is {actual}, not {expected[-1].split()[0]}"


def _why_parts_are_invalid(
    path: Path, parts: Iterable[str], checksums: dict[tuple[int, int], str]
) -> str | None:
    for name in parts:
        part = part_file(path.parent, name)
        if not part.is_file():
            return f"its part {part.name} is missing"
        actual = _checksum_once(part, checksums)
        if actual != name:
            return f"the checksum of its part {part.name} is {actual}"
    return None


def _checksum_once(path: Path, checksums: dict[tuple[int, int], str]) -> str:
    status = path.stat()
    inode = (status.st_dev, status.st_ino)
    if inode not in checksums:
        checksums[inode] = checksum(path)
    return checksums[inode]


def is_valid(path: Path) -> bool:
    """Return whether a checkpoint's content has the recorded checksum."""
    return why_invalid(path) is None


def checkpoints_by_step(folder: Path) -> list[Path]:
    """Return the files step=N.ckpt of a run, fewest steps first."""
    matches = [(_STEP.fullmatch(path.name), path) for path in folder.glob("step=*.ckpt")]
    by_step = sorted((int(match[1]), path) for match, path in matches if match and path.is_file())
    return [path for _, path in by_step]


def checkpoints_by_age(folder: Path) -> list[Path]:
    """Return the files step=N.ckpt of a run, oldest first.

    Those of more steps than last.ckpt count as older than all others: the run was resumed from an
    earlier step and abandoned them.
    """
    by_step = checkpoints_by_step(folder)
    last = _recorded(folder / LAST)[-1:]
    for i, path in enumerate(by_step):
        if last and _recorded(path)[-1:] == last:
            return [*by_step[i + 1 :], *by_step[: i + 1]]
    return by_step


def newest_valid(folder: Path) -> tuple[Path | None, list[str]]:
    """Return the checkpoint to resume from (last.ckpt, else the newest valid one), and error lines.

    There is a line for each invalid checkpoint that was skipped. best.ckpt does not count, since it may
    have been saved in the middle of an optimizer step. Each file is read at most once.
    """
    checksums: dict[tuple[int, int], str] = {}
    errors: list[str] = []
    candidates = list(reversed(checkpoints_by_age(folder)))
    if (folder / LAST).exists():
        candidates.insert(0, folder / LAST)
    for path in candidates:
        reason = why_invalid(path, checksums)
        if reason is None:
            return path, errors
        errors.append(f"{path.name} is broken ({reason})")
    return None, errors


@contextmanager
def recording_checksum(target: Path, digest: str) -> Iterator[None]:
    """Keep old and new checksum on record while the block replaces `target` by a file with the new one.

    A crash at any point then leaves a valid pair. Parts of the old file that nothing else lists are
    deleted.

    Args:
        target: the checkpoint.
        digest: the checksum of the new file, followed by the names of its parts.
    """
    before = _recorded(target)
    files.write_text(checksum_file(target), "\n".join([*before, digest]))
    yield
    if before:
        files.write_text(checksum_file(target), digest)
        _remove_unlisted(target.parent, _parts_in(before))


def link_as(path: Path, name: str) -> None:
    """Give a checkpoint a further name in its folder: a hard link, or else a copy."""
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
        temporary.unlink(missing_ok=True)  # renaming onto a link to the same file leaves both names


def prune(folder: Path, keep_last: int, max_disk_gb: float | None = None) -> list[Path]:
    """Delete old files step=N.ckpt, and no others. The newest and the one that best.ckpt links to are
    kept.

    Args:
        folder: checkpoints/ of a run. If it is a link to outside the run's folder, nothing is deleted.
        keep_last: how many of the newest are kept; -1: all.
        max_disk_gb: gigabytes (10**9 bytes) that the folder's checkpoints may take together.

    Returns: the paths deleted.
    """
    by_age = _removable(folder)
    num_surplus = 0
    if keep_last >= 0:
        num_surplus = max(len(by_age) - max(keep_last, 1), 0)
    removed = by_age[:num_surplus]
    for path in removed:
        remove(path)
    for path in by_age[num_surplus:-1]:
        if max_disk_gb is None or disk_usage(folder) <= max_disk_gb * _GB:
            break
        if not _is_same(path, folder / BEST):  # deleting a link to the same file frees nothing
            remove(path)
            removed.append(path)
    return removed


def make_room(folder: Path) -> list[Path]:
    """Delete all step=N.ckpt but the newest valid one and the best; none if none is valid. Return
    them.
    """
    kept, _ = newest_valid(folder)
    if kept is None:
        return []
    best = folder / BEST
    old = [path for path in _removable(folder) if not _is_same(path, kept) and not _is_same(path, best)]
    for path in old:
        remove(path)
    return old


def remove_leftovers(folder: Path) -> list[Path]:
    """Delete what a crashed process left incomplete in a run's checkpoints/; return the paths."""
    if not _is_own(folder):
        return []
    orphans = [path for path in folder.glob("*.ckpt.xxh3") if not path.with_suffix("").exists()]
    for path in orphans:
        path.unlink()
    orphans += _remove_unlisted(folder, [path.stem for path in folder.glob(f"*{_PART}")])
    return [*files.remove_leftovers(folder), *orphans]


def disk_usage(folder: Path) -> int:
    """Return the bytes that a folder's checkpoints take; a file with several names counts once."""
    statuses = [path.lstat() for ending in (".ckpt", _PART) for path in folder.glob(f"*{ending}")]
    return sum({(status.st_dev, status.st_ino): status.st_size for status in statuses}.values())


def size_of(path: Path) -> int:
    """Return the bytes of a checkpoint with its parts."""
    parts = [part_file(path.parent, name) for name in _parts_in(_recorded(path)[-1:])]
    return sum(file.stat().st_size for file in [path, *parts])


def _recorded(path: Path) -> list[str]:
    """Return the lines of a checksum file: one, or two while the checkpoint is replaced.

    Each is the checksum of a checkpoint, followed by the names of its parts, if it has any.
    """
    try:
        lines = checksum_file(path).read_text("ascii", "replace").splitlines()
    except FileNotFoundError:
        return []
    return [line for line in lines if line.split()]


def _parts_in(lines: Iterable[str]) -> list[str]:
    """Return the names of parts in lines of checksum files."""
    return [name for line in lines for name in line.split()[1:]]


def _remove_unlisted(folder: Path, names: Iterable[str]) -> list[Path]:
    """Delete those of these parts that no checkpoint lists; return their paths.

    None is deleted if a checkpoint has no checksum file, as one that a user has copied: it may need
    them.
    """
    candidates = set(names)
    if not candidates or not all(checksum_file(path).exists() for path in folder.glob("*.ckpt")):
        return []
    for file in folder.glob("*.ckpt.xxh3"):
        candidates.difference_update(_parts_in(_recorded(file.with_suffix(""))))
    paths = [part_file(folder, name) for name in sorted(candidates)]
    for path in paths:
        path.unlink(missing_ok=True)
    return paths


def _is_own(folder: Path) -> bool:
    return folder.is_dir() and folder.resolve().parent == folder.parent.resolve()


def _removable(folder: Path) -> list[Path]:
    if not _is_own(folder):
        return []
    return checkpoints_by_age(folder)


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def remove(path: Path) -> None:
    """Delete a checkpoint, if it exists, its checksum, and its parts that no other one lists."""
    parts = _parts_in(_recorded(path))
    path.unlink(missing_ok=True)
    checksum_file(path).unlink(missing_ok=True)
    _remove_unlisted(path.parent, parts)
