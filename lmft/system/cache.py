"""Folders of the cache that one process builds once and all others read."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from lmft.errors import UserError


def built_once(
    folder: Path,
    *,
    build: Callable[[Path], None],
    damage: Callable[[Path], str | None],
    warn: Callable[[str], None],
    waits: bool = True,
) -> Path:
    """Return a folder that is complete and undamaged, building it if it is missing.

    Of several processes, one builds and the others wait. A failed build leaves no files. If the cache
    cannot be written to, an existing folder is read.

    Args:
        folder: the folder's path.
        build: writes into the empty folder that it is given.
        damage: returns what is wrong with a folder, None if nothing is; a damaged one is built again.
        warn: called with what is wrong with a damaged folder.
        waits: wait while another process builds.

    Raises: UserError if the cache cannot be written to, the errors of `build`, and filelock.Timeout if
        another process builds and this one does not wait.
    """
    with ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(f"{folder}.lock", timeout=-1 if waits else 0))
        except Timeout:  # an OSError as well
            raise
        except OSError as error:
            if folder.exists() and damage(folder) is None:
                return folder
            what = f"cannot write to the cache: {error.strerror}"
            fix = "data.cache_dir=FOLDER that can be written to"
            raise UserError(what, str(folder.parent), fix) from error
        if folder.exists():
            wrong = damage(folder)
            if wrong is None:
                return folder
            warn(wrong)
            shutil.rmtree(folder)
        temporary = folder.with_name(folder.name + ".building")
        # It may be left from a killed build; the lock excludes a running one.
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            build(temporary)
        except BaseException:
            shutil.rmtree(temporary)
            raise
        temporary.rename(folder)
    return folder
