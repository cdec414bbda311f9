"""How a checkpoint gets to the disk, whole or not at all, and how it is read, with nothing in it being run."""

import errno
import io
import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
import xxhash
from lightning import LightningModule
from lightning.fabric.plugins import TorchCheckpointIO

from lmft.errors import UserError
from lmft.runs import checkpoints
from lmft.system import files

log = logging.getLogger(__name__)

_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, forces it to the disk and moves it there; with its checksum.

    folder: of the run. While it is there folders for checkpoints are made, with their parents; never the
    run's again.
    """

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes `path` and `path`.xxh3; a process that dies meanwhile leaves what was there as it was.

        On a full disk the run's older checkpoints make room for it. Raises: UserError if it cannot be
        written.
        """
        target = Path(path)
        try:
            run_is_there = self.folder is not None and self.folder.exists()
            target.parent.mkdir(parents=run_is_there, exist_ok=True)
            try:
                _write(checkpoint, target)
            except OSError as error:
                removed = checkpoints.make_room(target.parent) if error.errno in _DISK_IS_FULL else []
                if not removed:
                    raise
                names = ", ".join(path.name for path in removed)
                log.warning("the disk is full: %s removed to make room for %s", names, target.name)
                _write(checkpoint, target)
        except OSError as error:
            raise _write_error(error, target) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Reads a checkpoint. Only tensors and plain values are read, whatever is asked for. Raises:
        UserError.
        """
        return read(Path(path), map_location)

    def remove_checkpoint(self, path: Any) -> None:
        """Removes a checkpoint and its checksum."""
        super().remove_checkpoint(path)
        checkpoints.checksum_file(Path(path)).unlink(missing_ok=True)


def read(path: Path, map_location: Any = "cpu", mmap: bool = False) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is run. mmap: tensors are read when they are used. Raises:
    UserError.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:  # whose text tells how to switch the protection off
        fix = "only tensors and plain values are read: another could run code of its own"
        raise UserError(f"{path} holds more than a checkpoint may, or is none", fix=fix) from error
    except Exception as error:  # broken bytes lead anywhere
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint", reason, "resume=PATH of another") from error


def settings_of(path: Path) -> dict[str, Any]:
    """The config, redacted, of the run that a checkpoint is of. Raises: UserError if it is not one of a
    run's.
    """
    checkpoint = read(path, mmap=True)
    if not {"loops", "hyper_parameters"} <= checkpoint.keys():
        fix = "to begin with the weights of a model: model.name_or_path=FOLDER"
        raise UserError(f"{path} is no checkpoint of a run", "resume", fix)
    return checkpoint["hyper_parameters"]


def load_weights(module: LightningModule, path: Path) -> int:
    """Give the module a checkpoint's trained weights; returns their optimizer step. Raises: UserError."""
    checkpoint = read(path)
    try:
        module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    except (KeyError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} does not fit the model: {reason}", "checkpoint") from error
    return checkpoint["global_step"]


class _Sink(io.BufferedWriter):
    """What torch writes a checkpoint to: takes its checksum meanwhile, and knows why writing failed.

    torch's own error says only that the file is not as long as it should be.
    """

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path, "wb"))
        self.digest = xxhash.xxh3_64()
        self.error: OSError | None = None

    def write(self, buffer: Any, /) -> int:
        self.digest.update(buffer)
        try:
            return super().write(buffer)
        except OSError as error:
            self.error = self.error or error
            raise


def _write(checkpoint: dict[str, Any], target: Path) -> None:
    temporary = files.temporary_path(target)
    try:
        with _Sink(temporary) as sink:
            try:
                torch.save(checkpoint, sink)
            except RuntimeError:
                if sink.error is not None:
                    raise sink.error from None
                raise
            files.sync(sink)
        with checkpoints.recording_checksum(target, sink.digest.hexdigest()):
            temporary.replace(target)
            files.sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _write_error(error: OSError, target: Path) -> UserError:
    folder, what = target.parent, f"{target.name} could not be written: {error.strerror or error}"
    kept = checkpoints.newest_valid(folder)[0]
    goes_on = f"the same command goes on from {kept.name}" if kept else "the same command begins anew"
    if not folder.exists():
        return UserError(what, f"the folder {folder} is gone", goes_on)
    if error.errno in _DISK_IS_FULL:
        free = f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB are free"
        needed = f", {kept.name} takes {kept.stat().st_size / 1e6:,.0f} MB" if kept else ""
        what = f"the disk is full: {target.name} could not be written"
        return UserError(what, f"{folder}: {free}{needed}", f"free some space; {goes_on}")
    if error.errno in _NOT_ALLOWED:
        return UserError(what, str(folder), f"make the folder writable; {goes_on}")
    return UserError(what, str(folder), goes_on)
