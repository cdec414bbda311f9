"""metrics.csv: a row for each logged step and one for each validation."""

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lmft.training.scores import names_of_logged

log = logging.getLogger(__name__)

COLUMNS = (
    *("step", "epoch", "train/loss", *names_of_logged(), "lr", "tokens_per_second"),
    *("train/grad_norm", "train/tokens", "train/targets", "train/seconds_per_step", "memory_gb"),
)

TIMES = ("tokens_per_second", "train/seconds_per_step", "memory_gb")
"""Columns that differ between two runs of the same training."""


class MetricsFile(Logger):
    """metrics.csv: a row for each logged step and one for each validation, written at once.

    It is a Logger because Lightning's callbacks save into the folder of the first logger:
    <run>/lightning. `Metrics` writes the rows itself, before the checkpoint of the same step. Lightning
    would log them after it, and resuming would lose the row.
    """

    def __init__(self, path: Path, sources: Sequence[str] = ()):
        """Create the logger.

        Args:
            path: the file.
            sources: the names of a mixture's validation texts, whose scores get columns.
        """
        super().__init__()
        self.path = path
        own = [name for name in names_of_logged(sources) if name not in COLUMNS]
        self.columns = (*COLUMNS, *own)
        self._has_reported = False

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self.path.parent)

    @property
    def name(self) -> str:
        """The subfolder for files of Lightning's callbacks; checkpoints/ holds lmft's only."""
        return "lightning"

    @property
    def version(self) -> str:
        """Required by Logger; there is one file a run."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Report once which of the metrics that Lightning logs have no column."""
        self._report_others(metrics.keys() - set(self.columns))

    def _report_others(self, names: Iterable[str]) -> None:
        others = sorted(names)
        if others and not self._has_reported:
            self._has_reported = True
            log.info(
                "metrics.csv has no column for %s: "
                "another logger, such as logger=tensorboard, keeps all",
                ", ".join(others),
            )

    @rank_zero_only
    def append(self, row: dict[str, Any]) -> None:
        """Append a row; columns that it lacks stay empty.

        A file that was begun with fewer columns keeps those: checkpoints know its length in bytes.
        """
        columns = self._header() or list(self.columns)
        self._report_others(row.keys() - set(columns))
        is_new = not self.path.exists() or not self.path.stat().st_size
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            writer.writerow({name: _short(value) for name, value in row.items()})

    @rank_zero_only
    def add_columns(self, names: Sequence[str]) -> None:
        """Add columns, also to the rows so far; no checkpoint may have been saved yet."""
        self.columns += tuple(name for name in names if name not in self.columns)
        rows = read_rows(self.path)
        if rows:
            self.path.unlink()
            for row in rows:
                self.append(row)

    def _header(self) -> list[str] | None:
        if not self.path.exists():
            return None
        with self.path.open(newline="") as file:
            return next(csv.reader(file), None)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def losses_in(rows: Iterable[Mapping[str, str]]) -> list[float]:
    """Return the training losses in the rows of a metrics.csv."""
    return [float(row["train/loss"]) for row in rows if row.get("train/loss")]
