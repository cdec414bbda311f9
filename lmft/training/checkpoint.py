"""Checkpoints: when they are written, which are kept, and how a file comes to be whole or not at all."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

LAST, BEST = "last.ckpt", "best.ckpt"


class WholeFileIO(TorchCheckpointIO):
    """A checkpoint is written beside its place, forced to the disk and then moved there, with its checksum."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes `path` and `path`.xxh3; a process that dies meanwhile leaves the old file as it was."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.writing")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            checksum_file(target).write_text(checksum(temporary))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def checksum(path: Path) -> str:
    """xxh3 of a file's content."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()


def checksum_file(path: Path) -> Path:
    """Where a checkpoint's checksum stands."""
    return path.with_name(path.name + ".xxh3")


class Checkpoints(Checkpoint):
    """Saves `step=N.ckpt` every so many steps, after each epoch and at the end; keeps the newest and the best.

    `last.ckpt` and `best.ckpt` are further names of the newest and of the one with the lowest validation loss.

    every_n_steps: optimizer steps; keep_last: newest ones kept, 0 saves nothing, -1 keeps all; growing: files of the
    run that others append to, which resuming cuts back to what they held at the checkpoint.
    """

    def __init__(self, folder: Path, every_n_steps: int, keep_last: int, growing: Sequence[Path] = ()):
        self.folder, self.every_n_steps, self.keep_last, self.growing = folder, every_n_steps, keep_last, growing
        self.best_loss = float("inf")
        self._saved_step: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """What resuming must know: the loss to beat, and how long the growing files are."""
        lengths = {path.name: path.stat().st_size for path in self.growing if path.exists()}
        return {"best_loss": self.best_loss, "lengths": lengths}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores both."""
        self.best_loss = state_dict["best_loss"]
        for path in self.growing:
            length = state_dict["lengths"].get(path.name, 0)
            if path.exists() and path.stat().st_size > length:
                os.truncate(path, length)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run's checkpoint needs no saving again."""
        self._saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when the step says so; a validation that follows is saved with it, as resuming would not make it up."""
        fetcher = trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if self._is_due(trainer) and not trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the best so far, and what is due; the pass before training sets no mark."""
        if trainer.sanity_checking or (trainer.state.fn != "fit" and trainer.global_step == 0):
            return
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        is_best = loss < self.best_loss
        self.best_loss = loss if is_best else self.best_loss
        if is_best and _amid_a_step(trainer) and self.keep_last != 0:
            trainer.save_checkpoint(self.folder / BEST)  # under no other name: half a step's gradients are not in it
        elif is_best or self._is_due(trainer):
            path = self._save(trainer)
            if is_best and path is not None:
                self._name(trainer, path, BEST)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves each epoch's end."""
        self._save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every_n_steps == 0 and not _amid_a_step(trainer)

    def _save(self, trainer: Trainer) -> Path | None:
        if self.keep_last == 0:
            return None
        path = self.folder / f"step={trainer.global_step}.ckpt"
        if self._saved_step != trainer.global_step:
            self._saved_step = trainer.global_step
            trainer.save_checkpoint(path)
            self._name(trainer, path, LAST)
            self._prune(trainer)
        return path

    def _name(self, trainer: Trainer, path: Path, name: str) -> None:
        """A further name for a checkpoint: a hard link, or a copy where the file system has none."""
        if not trainer.is_global_zero:
            return
        for source, target in (
            (path, path.with_name(name)),
            (checksum_file(path), checksum_file(path.with_name(name))),
        ):
            temporary = target.with_name(f".{target.name}.writing")
            temporary.unlink(missing_ok=True)
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
            temporary.replace(target)

    def _prune(self, trainer: Trainer) -> None:
        if not trainer.is_global_zero or self.keep_last < 0:
            return
        for path in checkpoints_by_step(self.folder)[: -self.keep_last]:
            path.unlink()
            checksum_file(path).unlink(missing_ok=True)


def _amid_a_step(trainer: Trainer) -> bool:
    """Whether further micro-batches belong to the optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def checkpoints_by_step(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step=*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
