"""Checkpoints in parts: each process of a training writes what it holds of the tensors that are shared.

checkpoints/  step=N.ckpt    as of one device; but tensors that devices share have a shape and no content
              CHECKSUM.part  what one process holds of them; `step=N.ckpt` lists the names of its parts

A part is written before the checkpoint that lists it, and never changed: its name is its checksum.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmft.errors import UserError
from lmft.runs.checkpoints import part_file
from lmft.runs.saving import save
from lmft.system import files
from lmft.system.sharding import Piece, Scattered

LISTED = "parts"
"""The entry of a checkpoint that lists the names of its parts."""


def write_part(pieces: Mapping[str, Piece], folder: Path, rank: int) -> str:
    """Write the pieces of tensors that a process holds; return the name of the part. Raises: OSError.

    Args:
        pieces: by the place of each tensor in the checkpoint.
        folder: the checkpoint's folder.
        rank: the process, of whose temporary file no other one has the name.
    """
    temporary = files.temporary_path(folder / f"{rank}.part")
    try:
        name = save(
            {place: (list(piece.begins), piece.tensor) for place, piece in pieces.items()}, temporary
        )
        temporary.replace(part_file(folder, name))
        files.sync_folder(folder)
        return name
    finally:
        temporary.unlink(missing_ok=True)


def joined(checkpoint: dict[str, Any], path: Path, are_read: bool) -> dict[str, Any]:
    """Return a checkpoint with the content of its parts; one that lists none as it is.

    Args:
        checkpoint: what has been read from the file.
        path: the file.
        are_read: whether tensors are put together now; else they are Scattered.

    Raises: UserError if a part is missing or damaged.
    """
    if LISTED not in checkpoint:
        return checkpoint
    pieces: dict[str, list[Piece]] = {}
    for name in checkpoint[LISTED]:
        for place, (begins, tensor) in _read(part_file(path.parent, name), path).items():
            pieces.setdefault(place, []).append(Piece(tuple(begins), tensor))
    without_list = {key: value for key, value in checkpoint.items() if key != LISTED}
    try:
        return _filled(without_list, pieces, are_read)
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read: {error}", "its parts", "resume=PATH of another"
        ) from error


def _read(part: Path, of: Path) -> dict[str, tuple[list[int], Tensor]]:
    try:
        return torch.load(part, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        what = f"{of} is a checkpoint in parts, and one of them is missing"
        raise UserError(
            what, str(part), "keep the files *.part in the folder of the checkpoint"
        ) from error
    except Exception as error:  # corrupt bytes raise errors of any kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{part} cannot be read: {reason}", str(of), "resume=PATH of another") from error


def _filled(value: Any, pieces: Mapping[str, list[Piece]], are_read: bool, place: str = "") -> Any:
    """Return dicts and lists with their tensors without content replaced. Raises: ValueError."""
    if isinstance(value, Mapping):
        return {key: _filled(each, pieces, are_read, f"{place}/{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(
            _filled(each, pieces, are_read, f"{place}/{i}") for i, each in enumerate(value)
        )
    if not isinstance(value, Tensor) or not value.is_meta:
        return value
    scattered = Scattered(place, value.shape, value.dtype, tuple(pieces.get(place, ())))
    return scattered.whole() if are_read else scattered
