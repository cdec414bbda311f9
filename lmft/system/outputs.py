"""Files that a command is told to write: whether it can, before it computes what they get."""

import os
from pathlib import Path
from typing import Any

from lmft.errors import UserError


def output_file(option: str, given: Any) -> Path | None:
    """Return the path of a file to write; None if none is given.

    Args:
        option: the option's name, "output".
        given: its value.

    Raises: UserError if it is a folder, or in one that does not exist or cannot be written to.
    """
    if given is None or given == "":
        return None
    path = Path(str(given)).expanduser()
    where = f"{option}={given}"
    check_is_in_folder(path, where)
    if path.is_dir():
        raise UserError("this is a folder", where, f"{where.rstrip('/')}/FILE")
    return path


def check_is_in_folder(path: Path, where: str) -> None:
    """Raise UserError unless the folder that holds a path exists and can be written to."""
    folder = path.parent
    if not folder.is_dir():
        raise UserError("no such folder", f"{where}: {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError("this folder cannot be written to", f"{where}: {folder}", "another folder")
