"""What is measured while training: metrics.csv, the validation passes, and the totals of a run."""

import csv
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lmft.training.scores import MONITORED

log = logging.getLogger("lmft")


@dataclass
class Live:
    """The newest numbers of a run, as Python floats: whoever measures writes them here, `Progress` only reads.

    `loss` is the training loss in nats per target, averaged by its writer over the steps since it last wrote;
    `val_loss` that of the last validation; `tokens_per_second` over all devices.
    """

    loss: float | None = None
    val_loss: float | None = None
    tokens_per_second: float | None = None

    def __str__(self) -> str:
        parts = [
            ("loss {:.3f}", self.loss),
            ("val {:.3f}", self.val_loss),
            ("{:,.0f} tokens/s", self.tokens_per_second),
        ]
        return "  ".join(form.format(value) for form, value in parts if value is not None)


COLUMNS: tuple[str, ...] = (
    "step",
    "epoch",
    "train/loss",
    "val/loss",
    "val/perplexity",
    "val/accuracy",
    "lr",
    "tokens_per_second",
)


class MetricsFile(Logger):
    """metrics.csv: a row for each logged step and one for each validation, written at once.

    Lightning's callbacks keep what they save where the first logger says: in <run>/lightning.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self._has_told = False

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @property
    def name(self) -> str:
        """The folder in it for Lightning's callbacks: apart from checkpoints/, whose files are lmft's."""
        return "lightning"

    @property
    def version(self) -> str:
        """There is one a run."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Appends a row, unless none of the metrics has a column."""
        others = [name for name in metrics if name not in COLUMNS]
        if others and not self._has_told:
            self._has_told = True
            names = ", ".join(others)
            log.info("metrics.csv has no column for %s: a further logger, as logger=tensorboard, keeps all", names)
        if not set(metrics) - {*others, "epoch", "step"}:
            return
        is_new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            writer.writerow({name: _short(value) for name, value in {**metrics, "step": step}.items()})


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Metrics(Callback):
    """Logs the training loss every few steps and every validation; keeps the totals for metrics.json.

    The device is asked for a number only when a row is due.
    """

    def __init__(self, live: Live, every_n_steps: int):
        self.live, self.every_n_steps = live, every_n_steps
        self.validations: list[dict[str, Any]] = []  # {"step", "epoch", loss, perplexity, accuracy, …} of each pass
        self.totals = {"tokens": 0, "targets": 0, "padding": 0, "seconds": 0.0}
        self._counts = {"tokens": 0, "targets": 0, "padding": 0}  # this rank's, since the last row
        self._nats: Any = 0.0  # likewise; a tensor on the device
        self._clock = self._row_clock = self._paused = 0.0
        self._is_resumed = False

    @property
    def last_validated_step(self) -> int | None:
        """The optimizer step of the latest pass; None before the first."""
        return self.validations[-1]["step"] if self.validations else None

    def state_dict(self) -> dict[str, Any]:
        """The passes so far, the totals and the unfinished row."""
        nats, counts = self._over_ranks()
        return {"validations": self.validations, "totals": self.totals, "counts": counts, "nats": nats}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them; the unfinished row of all ranks goes on with the first."""
        self.validations, self.totals = state_dict["validations"], state_dict["totals"]
        self._is_resumed = True
        if self._trainer.is_global_zero:
            self._counts, self._nats = state_dict["counts"], state_dict["nats"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remembers whose ranks there are."""
        self._trainer = trainer

    def _over_ranks(self) -> tuple[float, dict[str, int]]:
        """Nats and counts since the last row, of all ranks together; the one wait for the device."""
        nats = float(self._nats)
        if self._trainer.world_size == 1:
            return nats, self._counts
        device = self._trainer.strategy.root_device
        mine = torch.tensor([nats, *self._counts.values()], dtype=torch.float64, device=device)
        nats, *counts = self._trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        return nats, {name: int(count) for name, count in zip(self._counts, counts, strict=True)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clocks. After resuming, what callbacks monitor is what the last validation before it measured."""
        self._clock = self._row_clock = time.perf_counter()
        if self._is_resumed and self.last_validated_step:
            latest = self.validations[-1]
            scores = {name: torch.tensor(float(latest[name.removeprefix("val/")])) for name in MONITORED}
            trainer.callback_metrics.update(scores)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; writes a row when one is due and the step is whole."""
        self._counts["tokens"] += batch["num_tokens"]
        self._counts["padding"] += batch["num_padding"]
        if trainer.fit_loop._should_accumulate():
            return
        step: Any = pl_module.step
        self._nats = self._nats + step.nats
        self._counts["targets"] += step.num_targets
        if trainer.global_step % self.every_n_steps == 0:
            self._write_row(trainer)

    def _write_row(self, trainer: Trainer) -> None:
        nats, counts = self._end_row()
        now = time.perf_counter()
        self.live.loss = nats / max(1, counts["targets"])
        self.live.tokens_per_second = counts["tokens"] / (now - self._row_clock)
        row = {
            "epoch": trainer.current_epoch,
            "train/loss": self.live.loss,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "tokens_per_second": self.live.tokens_per_second,
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)
        self._row_clock = now

    def _end_row(self) -> tuple[float, dict[str, int]]:
        nats, counts = self._over_ranks()
        for name, count in counts.items():
            self.totals[name] += count
        self._nats, self._counts = 0.0, dict.fromkeys(counts, 0)
        return nats, counts

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is no training time."""
        self._pause()

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Keeps the pass and writes its row."""
        scores = pl_module.validation_scores
        self.live.val_loss = scores["loss"]
        self.validations.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **scores})
        row = {f"val/{name}": scores[name] for name in ("loss", "perplexity", "accuracy")}
        for logger in trainer.loggers:
            logger.log_metrics({"epoch": trainer.current_epoch, **row}, step=trainer.global_step)
        now = time.perf_counter()
        self._row_clock += now - self._paused
        self._clock = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds what came behind the last row, and stops the clock."""
        self._end_row()
        self._pause()

    def _pause(self) -> None:
        self._paused = time.perf_counter()
        if self._clock:
            self.totals["seconds"] += self._paused - self._clock
        self._clock = 0.0
