import io
import logging
import re
import sys
import warnings

import lightning
import pytest
import torch
from rich.console import Console
from torch.utils.data import DataLoader, TensorDataset

from lmft.reporting import progress
from lmft.reporting import terminal as terminal_module
from lmft.reporting.notices import collecting_notices
from lmft.reporting.progress import counting_progress
from lmft.reporting.screen import Screen
from lmft.reporting.terminal import muted
from lmft.training.callbacks import progress as callback
from lmft.training.callbacks.progress import Progress
from lmft.training.latest_metrics import LatestMetrics
from tests.helpers.pseudo_terminal import lines_of


class Tiny(lightning.LightningModule):
    def __init__(self, live: LatestMetrics, fails_at: int | None = None):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.live, self.fails_at = live, fails_at

    def training_step(self, batch, batch_idx):
        if batch_idx == self.fails_at:
            raise RuntimeError("broken")
        self.live.loss, self.live.tokens_per_second = 4.312, 24510.4
        return self.layer(batch[0]).sum()

    def validation_step(self, batch, batch_idx):
        self.live.val_loss = 4.1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def listening(name: str):
    """Messages of a logger, as they come."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def lines():
    """What the logger `lmft` gets, which the terminal shows."""
    yield from listening("lmft")


@pytest.fixture
def kept():
    """What only a run's log gets."""
    yield from listening("lmft.terminal")


def loader(num_batches: int) -> DataLoader:
    return DataLoader(TensorDataset(torch.ones(num_batches, 1)), batch_size=1)


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ={"TERM": "xterm"})


def trainer(callback: Progress, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    return lightning.Trainer(accelerator="cpu", callbacks=[callback], num_sanity_val_steps=0, **quiet, **options)


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_lines_where_there_is_no_terminal(lines):
    live, out = LatestMetrics(), console(terminal=False)
    run = trainer(Progress(live, out), max_epochs=3, accumulate_grad_batches=2)
    run.fit(Tiny(live), loader(80), loader(3))
    assert out.file.getvalue() == ""
    left = [line for line in lines if "epoch" in line]
    assert [line.split("  ")[0] for line in left] == ["step 40/120", "step 80/120", "step 120/120"]
    lines = [line for line in lines if line not in left]
    assert len(lines) == 10
    assert re.fullmatch(r"step 12/120  loss 4\.312  24,510 tokens/s  0:\d\d left", lines[0])
    assert lines[-1] == "step 120/120  loss 4.312  val 4.100  24,510 tokens/s"


def test_a_line_after_half_a_minute_without_one(lines, monkeypatch):
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 10
        return now

    monkeypatch.setattr(progress.time, "monotonic", clock)
    live = LatestMetrics()
    trainer(Progress(live, console(terminal=False)), max_steps=100, max_epochs=-1).fit(Tiny(live), loader(100))
    lines = [line for line in lines if "epoch" not in line]
    assert 20 < len(lines) < 60
    assert all("left" in line for line in lines[:-1])


def test_steps_without_an_end_in_sight(lines, monkeypatch):
    monkeypatch.setattr(callback, "LINE_SECONDS", 0.0)
    live = LatestMetrics()
    run = trainer(Progress(live, console(terminal=False)), max_epochs=-1, max_time={"seconds": 0.2})
    run.fit(Tiny(live), loader(5))
    assert lines[0].startswith("step 1  loss 4.312")
    assert "left" not in lines[0]


def test_the_display_serves_a_validation_alone_and_a_training_with_validations(lines, kept):
    live, out = LatestMetrics(), console(terminal=True)
    run = trainer(Progress(live, out), max_epochs=2, max_steps=15)
    run.validate(Tiny(live), loader(4), verbose=False)
    assert "validating" in out.file.getvalue() and "0/4" in out.file.getvalue()
    run.fit(Tiny(live), loader(10), loader(3))
    drawn = out.file.getvalue()
    assert "epoch 1/2" in drawn and "epoch 2/2" in drawn
    assert "15/15" in drawn
    assert "loss 4.312   val 4.100" in drawn and "24,510 tokens/s" in drawn
    assert drawn.rstrip("\n").endswith("\x1b[2K")  # the display is erased
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h")  # the cursor is shown again
    stays = lines_of(drawn)
    assert stays == [
        "step 10/15  epoch 1/2  loss 4.312  val 4.100  0:00",
        "step 15/15  epoch 2/2  loss 4.312  0:00",
    ]
    assert lines == [] and [line for line in kept if "epoch" in line] == stays


def test_of_many_validations_some_leave_a_line(lines):
    live = LatestMetrics()
    run = trainer(Progress(live, console(terminal=False)), max_epochs=100)
    run.fit(Tiny(live), loader(3), loader(1))
    assert 20 <= len([line for line in lines if "epoch" in line]) <= callback.MOST_VALIDATION_LINES + 1


@pytest.mark.parametrize("terminal", [True, False])
def test_the_log_gets_the_same_lines_wherever_they_are_shown(terminal, lines, kept, monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    live, out = LatestMetrics(), console(terminal)
    run = trainer(Progress(live, out), max_epochs=2, accumulate_grad_batches=2)
    run.fit(Tiny(live), loader(30), loader(3))
    shown = kept if terminal else lines
    steps = [line for line in shown if "epoch" not in line]
    assert [line.split()[1] for line in steps] == [f"{step}/30" for step in range(3, 31, 3)]
    assert steps[-1] == "step 30/30  loss 4.312  val 4.100  24,510 tokens/s"
    assert [line.split("  ")[1] for line in shown if "epoch" in line] == ["epoch 1/2", "epoch 2/2"]
    assert (lines if terminal else kept) == []


def test_a_display_leaves_no_line_where_the_terminal_is_muted():
    live, out = LatestMetrics(), console(terminal=True)
    with muted():
        trainer(Progress(live, out), max_epochs=1).fit(Tiny(live), loader(10))
    assert out.file.getvalue().endswith("\x1b[2K")
    assert "step 10/10" not in out.file.getvalue()


def test_the_display_is_drawn_at_most_four_times_a_second(monkeypatch):
    num_drawn = 0
    refresh = Screen.refresh

    def counted(self, at_once: bool = False) -> None:
        nonlocal num_drawn
        num_drawn += 1
        refresh(self, at_once)

    monkeypatch.setattr(Screen, "refresh", counted)
    monkeypatch.setattr(callback, "REFRESH_SECONDS", 1e9)
    live = LatestMetrics()
    trainer(Progress(live, console(terminal=True)), max_steps=200, max_epochs=-1).fit(Tiny(live), loader(200))
    assert num_drawn <= 5  # the epoch, the last step


def test_an_error_gives_the_terminal_back():
    live, out = LatestMetrics(), console(terminal=True)
    with pytest.raises(RuntimeError, match="broken"):
        trainer(Progress(live, out), max_epochs=1).fit(Tiny(live, fails_at=3), loader(10))
    assert out.file.getvalue().rstrip("\n").endswith("\x1b[2K")
    assert not out._live_stack and terminal_module.terminal() is not out


def test_waiting_warnings_are_below_the_numbers_and_stay_after_the_epoch(lines):
    live, out = LatestMetrics(), console(terminal=True)

    class Warns(Tiny):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                logging.getLogger("lmft").warning("something is odd")
            return super().training_step(batch, batch_idx)

    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        with collecting_notices():
            trainer(Progress(live, out), max_epochs=2).fit(Warns(live), loader(10), loader(1))
            drawn = out.file.getvalue()
    finally:
        logging.getLogger().removeHandler(handler)
    assert "! something is odd" in drawn[: drawn.index("step 10/20")]  # in the display
    assert [line.partition("  loss")[0] for line in lines_of(drawn)] == [
        "step 10/20  epoch 1/2",
        "warning",
        "  ! something is odd",
        "step 20/20  epoch 2/2",
    ]


def test_only_the_first_process_shows_anything(lines):
    live, out = LatestMetrics(), console(terminal=True)
    callback = Progress(live, out)
    callback.disable()
    trainer(callback, max_epochs=1).fit(Tiny(live), loader(10), loader(2))
    assert out.file.getvalue() == "" and lines == []


def test_left_counts_from_the_step_of_resuming(monkeypatch):
    callback = Progress(LatestMetrics(), console(terminal=False))
    callback._total, callback._first_step, callback._started = 300, 100, 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: 50.0)
    assert callback._left(200) == "0:50 left"


def test_counting_on_a_terminal_leaves_the_line_that_is_logged(lines):
    out = console(terminal=True)
    with counting_progress("tokenising", 20, "documents", out) as advance:
        for _ in range(20):
            advance(1)
    drawn = out.file.getvalue()
    assert "tokenising" in drawn and "0/20 documents" in drawn and drawn.endswith("\x1b[2K")
    assert len(lines) == 1 and lines[0].startswith("tokenising: 20 documents in 0:00 (")


def test_counting_elsewhere_says_one_line(lines):
    out = console(terminal=False)
    with counting_progress("tokenising", None, "documents", out) as advance:
        advance(1500)
        advance(500)
    assert out.file.getvalue() == ""
    assert len(lines) == 1 and lines[0].startswith("tokenising: 2,000 documents in 0:00 (")


@pytest.mark.parametrize("terminal", [True, False])
def test_counting_of_failed_work_claims_nothing(terminal, lines, kept):
    with pytest.raises(ValueError, match="bad"), counting_progress("tokenising", 5, "documents", console(terminal)):
        raise ValueError("bad")
    assert lines == kept == []
