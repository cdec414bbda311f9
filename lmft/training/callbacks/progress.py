"""Show the progress of a training: a live display on a terminal, and lines in the log."""

import math
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, Group, RenderableType
from rich.text import Text

from lmft.reporting.live import Position, bar_line, flowed, sparkline, validation_line
from lmft.reporting.notebook_screen import NotebookScreen
from lmft.reporting.notices import notices
from lmft.reporting.progress import REFRESH_SECONDS, log_line
from lmft.reporting.screen import Screen, make_screen
from lmft.reporting.tables import duration
from lmft.reporting.terminal import is_muted
from lmft.training.latest_metrics import LatestMetrics

LINE_SECONDS = 30.0
LINES_PER_RUN = 10
MOST_VALIDATION_LINES = 30


class Progress(ProgressBar):
    """Shows the optimizer steps of the whole training, the numbers of `live`, and the time left.

    A line is logged at every tenth of the steps, and after 30 seconds without one. On a terminal a
    block is drawn at most four times a second instead, and these lines go to the run's train.log alone.
    After an epoch or a validation a line stays on the terminal, too. Only the first process shows
    anything. No tensor is read, so that the host never waits for a device.
    """

    def __init__(self, live: LatestMetrics, console: Console | None = None):
        super().__init__()
        self.live = live
        self.console = console or Console()
        self._enabled = True
        self._screen: Screen | NotebookScreen | None = None
        self._training: Position | None = None  # None: not training
        self._validation: Position | None = None  # None: not validating
        self._total: int | None = None  # optimizer steps; None: unknown
        self._first_step = 0  # 0, or the step that training resumes with
        self._step = 0
        self._line_step = 0  # step of the last line
        self._result_step = -1  # step of the last line that stays
        self._validated_step: int | None = None
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
        self._result_step = self._first_step
        self._started = time.monotonic()
        self._logged = self._started
        self.live.val_loss = None  # one measured before training says nothing about its steps
        self._training = Position("training", self._first_step, self._total)
        self._open()

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Show the number of the epoch."""
        self._training = Position(_epoch(trainer, self._total), self._step, self._total)
        self._draw(at_once=True, status="training")

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
        self._training = Position(_epoch(trainer, self._total), step, self._total, left)
        self._draw(at_once=is_last, status="training")
        is_tenth = False
        if self._total is not None:
            is_tenth = step - self._line_step >= math.ceil(self._total / LINES_PER_RUN)
        if self._log(f"step {self._training.counted}", left, at_once=is_last or is_tenth):
            self._line_step = step

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Leave a line, unless a validation has left one."""
        self._leave_line(trainer)

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begin to count validation batches, during training or on their own."""
        self._validation = Position("validating", 0, _num_validation_batches(trainer))
        self._open()
        self._draw(at_once=True, status="validating")

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
        assert self._validation is not None
        num_done = self._validation.done + 1
        self._validation = Position("validating", num_done, self._validation.total)
        self._draw(status="validating")
        self._log(f"validating batch {self._validation.counted}")

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Remove the row of validation batches; leave a line about a validation of the training."""
        self._validation = None
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validated_step = trainer.global_step
            self._leave_line(trainer)
        self._draw(at_once=True, status="" if self._training is None else "training")

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Erase the display; the lines stay."""
        self._close()
        self._training = None

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Erase the display before the error is printed."""
        self._close()

    def teardown(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Erase the display of a validation on its own."""
        self._close()

    def _open(self) -> None:
        if self._enabled and self._screen is None:
            self._screen = make_screen(self.console, self._block, "")
            if self._screen is not None:
                self._screen.open()

    def _close(self) -> None:
        if self._screen is not None:
            self._screen.close()
        self._screen = None

    def _draw(self, status: str, at_once: bool = False) -> None:
        """Draw the display, if it is time to or `at_once`."""
        if self._screen is None:
            return
        if at_once or time.monotonic() - self._drawn >= REFRESH_SECONDS:
            self._drawn = time.monotonic()
            self._screen.status = status

    def _block(self, width: int) -> RenderableType:
        """Return the lines of the display above the status line."""
        is_ascii = self.console.options.ascii_only
        shown = (self._training, self._validation)
        lines: list[Text] = [bar_line(each, width, is_ascii) for each in shown if each is not None]
        losses = self.live.of_losses
        if losses and self.live.loss is not None and len(self.live.losses) > 1 and not is_ascii:
            losses = [f"{losses[0]} {sparkline(self.live.losses)}", *losses[1:]]
        numbers = (losses, [*self.live.of_step, *self.live.of_speed])
        lines += [flowed(parts, width) for parts in numbers if parts]
        if newest := notices.newest_waiting:
            lines.append(Text(f"! {newest}", style="yellow", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)

    def _leave_line(self, trainer: lightning.Trainer) -> None:
        """Leave a line about the training so far, and the warnings since the last one."""
        step = trainer.global_step
        if not self._enabled or step == self._result_step or not self._is_due(step):
            return
        self._result_step = step
        position = Position(_epoch(trainer, self._total), step, self._total)
        seconds = time.monotonic() - self._started
        parts = self.live.of_losses
        if step != self._validated_step:
            parts = [part for part in parts if not part.startswith("val")]
        line = validation_line(position, parts, seconds)
        is_drawn = self._screen is not None
        if self._screen is not None and not is_muted():
            self._screen.print_line(line)
        log_line(line, is_drawn)
        notices.flush()

    def _is_due(self, step: int) -> bool:
        """Return whether enough steps were done for one of the lines that stay."""
        if self._total is None or step == self._total:
            return True
        return step - max(0, self._result_step) >= self._total / MOST_VALIDATION_LINES

    def _log(self, position: str, left: str = "", at_once: bool = False) -> bool:
        """Log a line, if it is time to or `at_once`; return whether it was logged."""
        if not self._enabled:
            return False
        if not at_once and time.monotonic() - self._logged < LINE_SECONDS:
            return False
        line = "  ".join(part for part in (position, str(self.live), left) if part)
        log_line(line, is_drawn=self._screen is not None)
        self._logged = time.monotonic()
        return True

    def _left(self, step: int) -> str:
        """Return the time to the end, at the mean speed since the start, validations included."""
        if self._total is None or step >= self._total:
            return ""
        seconds_per_step = (time.monotonic() - self._started) / (step - self._first_step)
        return f"{duration(seconds_per_step * (self._total - step))} left"


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
