"""How far a training is: a bar on a terminal, lines now and then in a file."""

import logging
import math
import time
from collections.abc import Iterable
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich import progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from lmft.reporting.progress import _COLUMNS, REFRESH_SECONDS, _say
from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, is_muted
from lmft.training.callbacks.metrics import LatestMetrics

LINE_SECONDS = 30.0
LINES_PER_RUN = 10
log = logging.getLogger("lmft")


class Progress(ProgressBar):
    """Shows the optimizer steps of the whole training, the numbers of `live`, and the time to its end.

    A line at every tenth of the steps, and after 30 seconds without one, goes to the logger `lmft`; on a
    terminal it goes to the run's log alone, and a bar is drawn at most four times a second. Only the first
    process shows anything. No tensor is read, so that the host never waits for a device.
    """

    def __init__(self, live: LatestMetrics, console: Console | None = None):
        super().__init__()
        self.live = live
        self.console = console or Console()
        self._enabled = True
        self._bar: _Bar | None = None
        self._steps: bars.TaskID | None = None
        self._batches: bars.TaskID | None = None
        self._total: int | None = None
        self._step = self._first_step = self._line_step = 0
        self._started = self._drawn = self._line = time.monotonic()
        self._num_validated = 0

    def disable(self) -> None:
        """Shows nothing until `enable`."""
        self._enabled = False
        self._close()

    def enable(self) -> None:
        """Undoes `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begins to count at the step that training begins or resumes with."""
        if not self._enabled:
            return
        total = trainer.estimated_stepping_batches
        self._total = None if math.isinf(total) else int(total)
        self._step = self._first_step = self._line_step = trainer.global_step
        self._started = self._line = time.monotonic()
        self._open()
        if self._bar:
            self._steps = self._bar.add_task(
                "training", total=self._total, completed=self._first_step, left=""
            )

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Names the epoch."""
        if self._bar and self._steps is not None:
            self._bar.update(self._steps, description=_epoch(trainer, self._total))
            self._refresh()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Shows the step, if it is time to."""
        step = trainer.global_step
        if not self._enabled or step == self._step:
            return
        self._step = step
        if self._bar and self._steps is not None and (step == self._total or self._is_bar_due()):
            self._bar.update(self._steps, completed=step, left=self._left(step))
            self._refresh()
        if step == self._total or step - self._line_step >= self._steps_per_line() or self._is_line_due():
            self._say(
                f"step {step}" if self._total is None else f"step {step}/{self._total}", self._left(step)
            )
            self._line_step = step

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begins to count validation batches, inside a training or on their own."""
        if not self._enabled:
            return
        self._num_validated = 0
        self._open()
        if self._bar:
            self._batches = self._bar.add_task("validating", total=_num_validation_batches(trainer), left="")
            self._refresh()

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Shows the batch, if it is time to."""
        if not self._enabled:
            return
        self._num_validated += 1
        if self._bar and self._batches is not None and self._is_bar_due():
            self._bar.update(self._batches, completed=self._num_validated)
            self._refresh()
        if self._is_line_due():
            total = _num_validation_batches(trainer)
            self._say(f"validating batch {self._num_validated}" + (f"/{total}" if total else ""))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Takes the count of batches away; the training's stays."""
        if self._bar and self._batches is not None:
            self._bar.remove_task(self._batches)
            self._batches = None
            self._refresh()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leaves the bar as it stands at the last step."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Gives the terminal back before the error is printed."""
        self._close()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Gives the terminal back after a validation on its own."""
        self._close()

    def _open(self) -> None:
        if self._bar is None and draws(self.console):
            self._bar = _Bar(self.live, self.console)
            self._bar.start()

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._bar = self._steps = self._batches = None

    def _refresh(self) -> None:
        if self._bar:
            self._bar.refresh()
        self._drawn = time.monotonic()

    def _is_bar_due(self) -> bool:
        return time.monotonic() - self._drawn >= REFRESH_SECONDS

    def _is_line_due(self) -> bool:
        return time.monotonic() - self._line >= LINE_SECONDS

    def _say(self, where: str, left: str = "") -> None:
        line = "  ".join(part for part in (where, str(self.live), left) if part)
        _say(line, is_drawn=self._bar is not None)
        self._line = time.monotonic()

    def _steps_per_line(self) -> float:
        return math.inf if self._total is None else math.ceil(self._total / LINES_PER_RUN)

    def _left(self, step: int) -> str:
        """Time to the end, at the mean speed since the start, validations included."""
        if self._total is None or step >= self._total:
            return ""
        seconds_per_step = (time.monotonic() - self._started) / (step - self._first_step)
        return f"{duration(seconds_per_step * (self._total - step))} left"


class _Bar(bars.Progress):
    """A row for the training, one for a validation while it runs, and below them the numbers of `live`."""

    def __init__(self, live: LatestMetrics, console: Console):
        self._numbers = live
        columns = (*_COLUMNS, bars.TimeElapsedColumn(), bars.TextColumn("{task.fields[left]}"))
        super().__init__(*columns, console=console, auto_refresh=False, transient=is_muted())

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if numbers := str(self._numbers):
            yield Text(numbers)


def _num_validation_batches(trainer: lightning.Trainer) -> int | None:
    """Over all loaders; None if one of them has no length."""
    batches = sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)
    return None if math.isinf(batches) else int(batches)


def _epoch(trainer: lightning.Trainer, total: int | None) -> str:
    """`epoch 2/3`, where 3 is the last that the steps reach, which max_steps may bring before max_epochs."""
    steps = math.inf if total is None else total
    batches = trainer.num_training_batches
    if math.isinf(steps) or math.isinf(batches):
        return f"epoch {trainer.current_epoch + 1}"
    last = math.ceil(steps / math.ceil(batches / trainer.accumulate_grad_batches))
    return f"epoch {trainer.current_epoch + 1}/{last}"
