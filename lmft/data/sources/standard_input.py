"""Standard input as a file: copied once, because a text is read several times."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

from lmft.errors import UserError

NAME = "-"
_COPY = "LMFT_STANDARD_INPUT"  # environment variable with the copy's path, for processes of one run


def copy_of_standard_input(cache_dir: Path) -> Path:
    """Return a copy of standard input, which is removed when this process ends.

    Later calls, and processes that this one starts, get the same copy.

    Raises: UserError if standard input is a terminal.
    """
    known = os.environ.get(_COPY)
    if known and Path(known).is_file():
        return Path(known)
    if sys.stdin is None or sys.stdin.isatty():
        what = "nothing is piped into standard input"
        raise UserError(what, "data.train=-", "zcat FILE.gz | python -m lmft.train data.train=-")
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache_dir, prefix="standard-input-", delete=False) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    path = Path(copy.name)
    os.environ[_COPY] = str(path)
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # a forked process has this function registered, too
        path.unlink(missing_ok=True)
