"""Keep the sums of the validations that details.json is made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer

from lmft.breakdown.measurement import Measurement

Which = Literal["best", "last"]


class Details(Callback):
    """Writes the sums of the validation before training, of the best and of the last one.

    They are files, not part of checkpoints: they have an entry for each document, and a run that is
    continued finds them in its folder. They belong to the first process.
    """

    def __init__(
        self,
        folder: Path,
        tell: Callable[[Measurement | None, Measurement], object],
        inherited: Path | None = None,
    ):
        """Create the callback.

        Args:
            folder: the run's folder of measurements.
            tell: called after each validation during training with the measurement before training, if
                there is one, and with the latest.
            inherited: the folder of another run, from whose checkpoint this one began.
        """
        self.folder = folder
        self.tell = tell
        self.inherited = inherited
        self.before: Measurement | None = None
        self._best_loss = float("inf")
        self._is_read = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read what an earlier process of the run has measured up to the checkpoint."""
        self._read(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read it if there was no step left to train, so that no training has started."""
        self._read(trainer)

    def _read(self, trainer: Trainer) -> None:
        if self._is_read or not trainer.is_global_zero:
            return
        self._is_read = True
        folders = [self.folder] if self.inherited is None else [self.folder, self.inherited]
        if self.before is None:
            kept = [path for folder in folders if (path := folder / "before.npz").exists()]
            self.before = Measurement.load(kept[0]) if kept else None
        best = self._file("best")
        if best.exists():
            measurement = Measurement.load(best)
            if measurement.step <= trainer.global_step:
                self._best_loss = measurement.loss
            else:
                best.unlink()  # of a validation that takes place once more

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the sums, if losses are broken down."""
        module: Any = pl_module
        if trainer.sanity_checking or not trainer.is_global_zero or not module.latest_sums:
            return
        loss = module.latest_scores["loss"]
        measurement = Measurement(trainer.global_step, loss, module.latest_sums)
        if trainer.state.fn != "fit" and trainer.global_step == 0:
            self.before = measurement
            measurement.save(self.folder / "before.npz")
            return
        measurement.save(self._file("last"))
        if loss < self._best_loss:
            self._best_loss = loss
            measurement.save(self._file("best"))
        self.tell(self.before, measurement)

    def of_step(self, which: Which, step: int) -> Measurement | None:
        """Return the best or the last validation's sums; None if it is not known, or of another step."""
        path = self._file(which)
        measurement = Measurement.load(path) if path.exists() else None
        return measurement if measurement is not None and measurement.step == step else None

    def _file(self, which: Which) -> Path:
        return self.folder / f"{which}.npz"
