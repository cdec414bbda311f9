"""Show the progress of a training: a bar on a terminal, and lines in the log."""

import math
import time
from collections.abc import Iterable
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich import progress as bars
from rich.console import Console, RenderableType
from rich.text import Text

from lmft.reporting.progress import COLUMNS, REFRESH_SECONDS, log_line
from lmft.reporting.tables import duration
from lmft.reporting.terminal import draws, is_muted
from lmft.training.callbacks.metrics import LatestMetrics

LINE_SECONDS = 30.0
LINES_PER_RUN = 10


class Progress(ProgressBar):
    """Shows the optimizer steps of the whole training, the numbers of `live`, and the time left.

    A line is logged at every tenth of the steps, and after 30 seconds without one. On a terminal a bar
    is drawn at most four times a second, and the lines go to the run's train.log alone. Only the first
    process shows anything. No tensor is read, so that the host never waits for a device.
    """

    def __init__(self, live: LatestMetrics, console: Console | None = None):
        super().__init__()
        self.live = live
        self.console = console or Console()
        self._enabled = True
        self._bar: _Bar | None = None
        self._training_row: bars.TaskID | None = None
        self._validation_row: bars.TaskID | None = None
        self._total: int | None = None  # optimizer steps; None: unknown
        self._first_step = 0  # 0, or the step that training resumes with
        self._step = 0
        self._line_step = 0  # step of the last line
        self._num_validated = 0
        self._started = time.monotonic()
        self._drawn = self._started
        self._logged = self._started

    def disable(self) -> None:
        """Show nothing until `enable`."""
        self._enabled = False
        self._close()

    def enable(self) -> None:
        """Show progress again."""
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin to count at the step that training begins or resumes with."""
        total = trainer.estimated_stepping_batches
        self._total = None if math.isinf(total) else int(total)
        self._first_step = trainer.global_step
        self._step = self._first_step
        self._line_step = self._first_step
        self._started = time.monotonic()
        self._logged = self._started
        self.live.val_loss = None  # one measured before training says nothing about its steps
        self._open()
        if self._bar:
            self._training_row = self._bar.add_task(
                "training", total=self._total, completed=self._first_step, left=""
            )

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Show the number of the epoch."""
        self._draw(self._training_row, at_once=True, description=_epoch(trainer, self._total))

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Show the step."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        is_last = step == self._total
        left = self._left(step)
        self._draw(self._training_row, at_once=is_last, completed=step, left=left)
        position = f"step {step}"
        is_tenth = False
        if self._total is not None:
            position += f"/{self._total}"
            is_tenth = step - self._line_step >= math.ceil(self._total / LINES_PER_RUN)
        if self._log(position, left, at_once=is_last or is_tenth):
            self._line_step = step

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to count validation batches, during training or on their own."""
        self._num_validated = 0
        self._open()
        if self._bar:
            total = _num_validation_batches(trainer)
            self._validation_row = self._bar.add_task("validating", total=total, left="")
            self._draw(self._validation_row, at_once=True)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the number of validation batches."""
        self._num_validated += 1
        self._draw(self._validation_row, completed=self._num_validated)
        position = f"validating batch {self._num_validated}"
        if total := _num_validation_batches(trainer):
            position += f"/{total}"
        self._log(position)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Remove the row of validation batches."""
        if self._bar and self._validation_row is not None:
            self._bar.remove_task(self._validation_row)
            self._bar.refresh()
            self._validation_row = None

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the bar as it is at the last step."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is printed."""
        self._close()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Close the bar of a validation on its own."""
        self._close()

    def _open(self) -> None:
        if self._enabled and self._bar is None and draws(self.console):
            self._bar = _Bar(self.live, self.console)
            self._bar.start()

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._bar = None
        self._training_row = None
        self._validation_row = None

    def _draw(self, row: bars.TaskID | None, at_once: bool = False, **values: Any) -> None:
        """Update a row and draw the bar, if it is time to or `at_once`."""
        if self._bar is None or row is None:
            return
        if at_once or time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._bar.update(row, refresh=True, **values)
            self._drawn = time.monotonic()

    def _log(self, position: str, left: str = "", at_once: bool = False) -> bool:
        """Log a line, if it is time to or `at_once`; return whether it was logged."""
        if not self._enabled:
            return False
        if not at_once and time.monotonic() - self._logged < LINE_SECONDS:
            return False
        line = "  ".join(part for part in (position, str(self.live), left) if part)
        log_line(line, is_drawn=self._bar is not None)
        self._logged = time.monotonic()
        return True

    def _left(self, step: int) -> str:
        """Return the time to the end, at the mean speed since the start, validations included."""
        if self._total is None or step >= self._total:
            return ""
        seconds_per_step = (time.monotonic() - self._started) / (step - self._first_step)
        return f"{duration(seconds_per_step * (self._total - step))} left"


class _Bar(bars.Progress):
    """Rows for the training and for a validation while it runs; below them the numbers of `live`."""

    def __init__(self, live: LatestMetrics, console: Console):
        self._numbers = live
        columns = (*COLUMNS, bars.TimeElapsedColumn(), bars.TextColumn("{task.fields[left]}"))
        # No refresh thread: it could hold the console's lock just when a process forks.
        super().__init__(*columns, console=console, auto_refresh=False, transient=is_muted())

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if numbers := str(self._numbers):
            yield Text(numbers)


def _num_validation_batches(trainer: lightning.Trainer) -> int | None:
    """Return the number of batches of all loaders; None if one of them has no length."""
    batches = sum(trainer.num_sanity_val_batches if trainer.sanity_checking else trainer.num_val_batches)
    return None if math.isinf(batches) else int(batches)


def _epoch(trainer: lightning.Trainer, num_steps: int | None) -> str:
    """Return `epoch 2/3`; 3 is the epoch of the last step, which max_steps may end before max_epochs."""
    epoch = f"epoch {trainer.current_epoch + 1}"
    num_batches = trainer.num_training_batches
    if num_steps is None or math.isinf(num_batches):
        return epoch
    steps_per_epoch = math.ceil(num_batches / trainer.accumulate_grad_batches)
    return f"{epoch}/{math.ceil(num_steps / steps_per_epoch)}"
