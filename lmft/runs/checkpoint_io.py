"""Write checkpoints atomically, and read them without running any code in them."""

import errno
import logging
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.fabric.plugins import TorchCheckpointIO

from lmft.errors import UserError
from lmft.runs import checkpoints, parts
from lmft.runs.saving import save
from lmft.system import files
from lmft.system.sharding import Piece, anywhere, complete, of_all

log = logging.getLogger(__name__)

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint atomically, through a temporary file, and records its checksum.

    folder: the run's folder. While it exists, folders for checkpoints are made with their parents; once
    it is deleted, it is not made again.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write `path` and `path`.xxh3; a crash meanwhile leaves an earlier checkpoint unchanged.

        If the disk is full, the run's older checkpoints are deleted to make room.

        Raises: UserError if it cannot be written.
        """
        target = Path(path)
        try:
            self._make_folder(target)
            try:
                _write(checkpoint, target)
            except OSError as error:
                if error.errno not in _DISK_IS_FULL or not _make_room(target):
                    raise
                _write(checkpoint, target)
        except OSError as error:
            raise _write_error(error, target) from error

    def save_parts(self, pieces: Mapping[str, Piece], path: Any, rank: int) -> list[str]:
        """Write this process's part of a checkpoint; return the names of the parts of all processes.

        All processes have to call it. If a disk is full, the run's older checkpoints are deleted to make
        room.

        Args:
            pieces: what this process holds, by the place of each tensor in the checkpoint.
            path: the checkpoint that is going to list the parts.
            rank: the number of this process; the first one makes room.

        Raises: UserError on all processes if one of them cannot write its part.
        """
        target = Path(path)
        name, error = self._write_part(pieces, target, rank)
        is_full = error is not None and error.errno in _DISK_IS_FULL
        if anywhere(is_full):
            has_room = rank == 0 and _make_room(target)
            if anywhere(has_room) and error is not None:
                name, error = self._write_part(pieces, target, rank)
        written = of_all((name, error))
        for _, failure in written:
            if failure is not None:
                raise _write_error(failure, target) from failure
        return [each for each, _ in written]

    def _write_part(
        self, pieces: Mapping[str, Piece], target: Path, rank: int
    ) -> tuple[str, OSError | None]:
        """Return the part's name, or what has prevented it from being written."""
        try:
            self._make_folder(target)
            return parts.write_part(pieces, target.parent, rank), None
        except OSError as error:
            return "", OSError(error.errno, error.strerror)  # without what other processes cannot read

    def _make_folder(self, target: Path) -> None:
        run_exists = self.folder is not None and self.folder.exists()
        target.parent.mkdir(parents=run_exists, exist_ok=True)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint: tensors and plain values only, whatever `weights_only` is. Raises:
        UserError.
        """
        return read(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint, its checksum and its parts."""
        checkpoints.remove(Path(path))


def read(path: Path, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint, without running any code in it.

    Args:
        path: its file.
        map_location: the device of its tensors.
        mmap: read each tensor only when it is used. Of a checkpoint in parts they are Scattered.

    Raises: UserError.
    """
    content = _read(path, map_location, mmap)
    return parts.joined(content, path, are_read=not mmap) if isinstance(content, dict) else content


def _read(path: Path, map_location: Any, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:  # its own text would tell how to switch the protection off
        fix = "only tensors and plain values are read: other objects could run code"
        raise UserError(
            f"{path} is not a checkpoint, or contains objects that are not allowed in one", fix=fix
        ) from error
    except Exception as error:  # corrupt bytes raise errors of any kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint", reason, "resume=PATH of another checkpoint"
        ) from error


def settings_of(path: Path) -> dict[str, Any]:
    """Return the redacted config in a run's checkpoint. Raises: UserError if it is none."""
    checkpoint = read(path, mmap=True)
    if not {"loops", "hyper_parameters"} <= checkpoint.keys():
        fix = "to begin with the weights of a model: model.name_or_path=FOLDER"
        raise UserError(f"{path} is not a checkpoint of a run", "resume", fix)
    return checkpoint["hyper_parameters"]


def step_of(path: Path) -> int:
    """Return the optimizer step of a run's checkpoint. Raises: UserError if it is none."""
    return int(read(path, mmap=True)["global_step"])


def save_weights(module: LightningModule, step: int, path: Path) -> None:
    """Write the weights of a module, frozen ones too. Raises: OSError."""
    _write({"state_dict": module.state_dict(), "global_step": step}, path)


def load_weights(module: LightningModule, path: Path, *newer: Path) -> int:
    """Load a checkpoint's trained weights, or the mean of several, into a module.

    The sums of the mean are float32; what is not a floating-point number comes from the last checkpoint.

    Args:
        module: the module.
        path: the checkpoint; of several the oldest.
        newer: further checkpoints, oldest first.

    Returns: the optimizer step of the last one. Raises: UserError.
    """
    checkpoint = read(path, mmap=True)
    weights = checkpoint["state_dict"]
    if newer:
        weights = {name: complete(value) for name, value in weights.items()}
    for other in newer:
        checkpoint = read(other, mmap=True)
        values = {name: complete(value) for name, value in checkpoint["state_dict"].items()}
        weights = {
            name: weights[name].float() + value if value.is_floating_point() else value
            for name, value in values.items()
        }
    if newer:
        number = 1 + len(newer)
        weights = {
            name: value / number if value.is_floating_point() else value
            for name, value in weights.items()
        }
    try:
        module.load_state_dict(weights, strict=module.strict_loading)
    except (KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} does not fit the model: {reason}", "checkpoint") from error
    return checkpoint["global_step"]


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    temporary = files.temporary_path(target)
    try:
        digest = save(checkpoint, temporary)
        recorded = " ".join([digest, *checkpoint.get(parts.LISTED, ())])
        with checkpoints.recording_checksum(target, recorded):
            temporary.replace(target)
            files.sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(target: Path) -> bool:
    """Delete the run's older checkpoints, since the disk is full; return whether there were any."""
    removed = checkpoints.make_room(target.parent)
    if removed:
        names = ", ".join(path.name for path in removed)
        log.warning("the disk is full: %s removed to make room for %s", names, target.name)
    return bool(removed)


def _write_error(error: OSError, target: Path) -> UserError:
    folder = target.parent
    what = f"{target.name} could not be written: {error.strerror or error}"
    kept = checkpoints.newest_valid(folder)[0]
    resume = "the same command starts over"
    if kept:
        resume = f"the same command resumes from {kept.name}"
    if not folder.exists():
        return UserError(what, f"the folder {folder} is gone", resume)
    if error.errno in _DISK_IS_FULL:
        what = f"the disk is full: {target.name} could not be written"
        where = f"{folder}: {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free"
        if kept:
            where += f", {kept.name} takes {checkpoints.size_of(kept) / 1e6:,.0f} MB"
        return UserError(what, where, f"free some space; {resume}")
    if error.errno in _NOT_ALLOWED:
        return UserError(what, str(folder), f"make the folder writable; {resume}")
    return UserError(what, str(folder), resume)
