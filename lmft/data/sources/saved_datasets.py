"""Folders written by `save_to_disk` of the `datasets` library."""

import json
from pathlib import Path
from typing import Any

from lmft.data.sources.opening import File
from lmft.errors import UserError

_DICT = "dataset_dict.json"
_STATE = "state.json"
_INFO = "dataset_info.json"


def is_saved_dataset(folder: Path) -> bool:
    """Return whether a folder holds one saved Dataset."""
    return (folder / _STATE).is_file() and (folder / _INFO).is_file()


def saved_splits(folder: Path) -> list[str] | None:
    """Return the splits of a saved DatasetDict; None if the folder holds none. Raises: UserError."""
    if not (folder / _DICT).is_file():
        return None
    splits = _content(folder / _DICT).get("splits")
    if not isinstance(splits, list):
        raise _damaged(folder / _DICT, "no list of splits")
    return [str(split) for split in splits]


def saved_files(folder: Path) -> list[File]:
    """Return the Arrow files of a saved Dataset, in its order. Raises: UserError if one is missing."""
    state = _content(folder / _STATE)
    try:
        names = [entry["filename"] for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise _damaged(folder / _STATE, "no list of data files") from error
    paths = [folder / name for name in names]
    for path in paths:
        if not path.is_file():
            raise _damaged(folder / _STATE, f"its file {path.name} is missing")
    return [File(path, "arrow", str(path)) for path in paths]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict):
        raise _damaged(path, "no JSON object")
    return content


def _damaged(path: Path, reason: str) -> UserError:
    what = f"the saved data set is damaged: {' '.join(reason.split())}"
    return UserError(what, str(path), "write it again, by dataset.save_to_disk(FOLDER)")
