"""Names in a published card: ids of the hub, and no paths of this machine."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

# An absolute path, or one from a home or outer folder, in a list or mapping; group 1 is its last part.
_PATH = re.compile(r"(?<![\w.*])(?:~|\.{0,2})/(?:[^\s,\[\]{}'\"]+/)*([^\s,/\[\]{}'\"]+)")


def public_command(command: str | None) -> str | None:
    """Return a command whose paths are named by their last part only."""
    if command is None:
        return None
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=")
        if value.startswith(("[", "{")):
            value = _PATH.sub(r"\1", value)
        elif "/" in value:
            value = public_name(value)
        words.append(f"{key}{equals}{value}")
    return shlex.join(words)


def dataset_ids(data: Mapping[str, Any]) -> list[str]:
    """Return the hub ids of the training text; none if it is read from files."""
    paths = [source["path"] for source in _trained_sources(data) if not source.get("train")]
    return [name for path in paths if (name := hub_id(path))]


def dataset_name(data: Mapping[str, Any]) -> str:
    """Return the names of the training text: hub ids, or the last parts of paths."""
    names: list[str] = []
    for source in _trained_sources(data):
        named = source.get("train") or source["path"]
        names += [named] if isinstance(named, str) else named
    return ", ".join(map(public_name, names))


def _trained_sources(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the sources of a mixture that were trained on, or the one source."""
    sources = (data.get("sources") or {"": data}).values()
    return [source for source in sources if source.get("weight", 1)]


def public_name(name_or_path: str) -> str:
    """Return a hub id as it is, a path by its last part."""
    return hub_id(name_or_path) or Path(name_or_path).name


def hub_id(name_or_path: str) -> str | None:
    """Return `name_or_path` if it can be a hub id, None if it is a folder or anything else."""
    if Path(name_or_path).expanduser().exists():
        return None
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return None
    return name_or_path
