"""Find the folders of runs that paths and patterns name."""

import glob
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lmft.errors import UserError, did_you_mean
from lmft.runs.folder import RunFolder

log = logging.getLogger(__name__)


def runs_at(paths: Sequence[str]) -> list[RunFolder]:
    """Return the runs that paths name, each once, in the order of the paths.

    Args:
        paths: folders of runs; folders that hold runs, or sweeps; patterns of such folders.

    Raises: UserError if a path leads to no run.
    """
    found: dict[Path, RunFolder] = {}
    files = [path for path in paths if Path(path).expanduser().is_file()]
    if files and len(files) == len(paths):
        raise UserError("this is a file, and runs are folders", files[0], str(Path(files[0]).parent))
    for path in paths:
        if path in files:  # a shell's pattern matches a sweep's files, too
            continue
        folders = _folders(path)
        runs = [run for folder in folders for run in _runs_in(folder)]
        if not runs:
            what = f"no run in {path}"
            raise UserError(what, fix="name a run, or a folder that holds runs: runs/NAME")
        num_others = sum(not any(_runs_in(folder)) for folder in folders)
        if num_others:
            log.info("%s: %d of its %d folders hold no run", path, num_others, len(folders))
        for run in runs:
            resolved = run.path.resolve()
            if resolved not in found or found[resolved].path.is_symlink():  # `best` leads to another
                found[resolved] = run
    return list(found.values())


def common_folder(runs: Sequence[RunFolder]) -> Path:
    """Return the innermost folder that holds all runs."""
    folder = Path(os.path.commonpath([run.path.parent.absolute() for run in runs]))
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _folders(path: str) -> list[Path]:
    """Return the folder, or those that match a pattern. Raises: UserError if there is none."""
    plain = Path(path).expanduser()
    if plain.is_dir():
        return [plain]
    if glob.has_magic(path):
        paths = glob.glob(str(plain), recursive=True)  # noqa: PTH207 (it may be absolute)
        matches = sorted(map(Path, paths))
        folders = [match for match in matches if match.is_dir() and not match.is_symlink()]
        if folders:
            return folders
        raise UserError("no folder matches the pattern", path)
    known = []
    if plain.parent.is_dir():
        known = [sibling.name for sibling in plain.parent.iterdir() if sibling.is_dir()]
    prefix = plain.as_posix().removesuffix(plain.name)
    raise UserError(f"no such folder{did_you_mean(plain.name, known, prefix)}", path)


def _runs_in(folder: Path) -> Iterator[RunFolder]:
    """Yield the folder's own run, or else those in it and in the sweeps in it."""
    if _is_run(folder):
        yield RunFolder(folder)
        return
    for inner in _inner(folder):
        if _is_run(inner):
            yield RunFolder(inner)
        else:
            yield from (RunFolder(job) for job in _inner(inner) if _is_run(job))


def _inner(folder: Path) -> list[Path]:
    """Return the folders in a folder; links, such as that to a sweep's best run, are left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")
    )


def _is_run(folder: Path) -> bool:
    """Return whether a run has used the folder, be it that it failed before it began."""
    run = RunFolder(folder)
    return run.is_run() or run.metrics.is_file()
