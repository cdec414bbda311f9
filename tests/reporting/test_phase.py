"""Long calls are named before they begin, and are never silent; seen on pseudo-terminals, and in pipes."""

import os
import subprocess
import sys
import time

import pytest

from lmft.reporting import heartbeat, phase
from lmft.reporting.notices import collecting_notices
from lmft.reporting.phase import _Lines
from lmft.reporting.progress import counting_progress
from lmft.reporting.screen import Screen
from lmft.reporting.terminal import muted, show, terminal
from tests.helpers.pseudo_terminal import called_on_terminal
from tests.helpers.runs import CHECKOUT


def busy(seconds: float = 0.6) -> None:
    """A call that shows nothing itself, and keeps the main thread busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def test_a_phase_is_named_at_once_moves_and_leaves_nothing():
    def work():
        print("before")
        with phase.phase("loading the weights"):
            busy(1.5)
        print("after")

    shown = called_on_terminal(work)
    assert shown.exit_code == 0 and shown.lines == ["before", "after"]
    frames = [line for n in range(1, len(shown.chunks)) for line in shown.lines_after(n) if "loading" in line]
    assert any(frame.endswith(" loading the weights") for frame in frames)
    assert any(frame.endswith(" loading the weights  1 s") for frame in frames)
    assert len({frame[0] for frame in frames}) >= 3  # the sign moves
    assert shown.raw.count("\x1b[?25l") == shown.raw.count("\x1b[?25h")


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_phase_with_a_long_name_takes_one_line(columns):
    def work():
        with phase.phase("loading " + "x" * 300):
            busy()

    shown = called_on_terminal(work, columns)
    assert shown.lines == []
    assert all(len(shown.lines_after(n)) <= 1 for n in range(len(shown.chunks)))


def test_what_is_printed_meanwhile_stands_above_and_stays():
    def work():
        with phase.phase("outer"):
            print("printed")
            busy()
            with phase.phase("inner"):
                show("shown")
                sys.stderr.write("on stderr\n")
            with counting_progress("counting", 10, "things") as advance:
                advance(10)
                busy()
            busy()
        print("end")

    shown = called_on_terminal(work)
    assert [line for line in shown.lines if line] == ["printed", "shown", "on stderr", "end"]
    assert "inner" in shown.raw and "10/10 things" in shown.raw


def test_a_phase_inside_a_live_display_is_its_last_line():
    def work():
        from rich.text import Text

        screen = Screen(terminal(), lambda _: Text("the block"), "training")
        screen.open()
        with phase.phase("saving"):
            busy()
        busy()
        screen.close()

    shown = called_on_terminal(work)
    pages = [shown.lines_after(n) for n in range(len(shown.chunks))]
    assert any(page[0] == "the block" and page[1].endswith("saving") for page in pages if len(page) == 2)
    assert any(page[1].endswith("training") for page in pages if len(page) == 2)
    assert shown.lines == []


def test_processes_that_fork_while_the_line_moves_are_not_locked():
    def work():
        with phase.phase("working"):
            for _ in range(40):
                pid = os.fork()
                if not pid:
                    with phase.phase("in the child"), counting_progress("c", 1, "u") as advance:
                        advance(1)
                    os._exit(7)
                busy(0.03)
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7

    assert called_on_terminal(work).exit_code == 0


def test_no_thread_stays():
    def work():
        with phase.phase("a"):
            busy()
        time.sleep(3 * heartbeat.SECONDS)
        assert heartbeat._thread is None

    assert called_on_terminal(work).exit_code == 0


def test_an_error_erases_the_line():
    def work():
        try:
            with phase.phase("failing"):
                busy()
                raise ValueError
        except ValueError:
            print("error: it failed")

    assert called_on_terminal(work).lines == ["error: it failed"]


def test_nothing_is_drawn_where_the_terminal_is_muted():
    def work():
        with muted(), phase.phase("hidden"):
            busy()

    assert called_on_terminal(work).chunks == []


def test_every_command_names_the_loading_of_the_libraries():
    users = [path for path in sorted((CHECKOUT / "lmft/commands").glob("*.py")) if _loads_torch(path.read_text())]
    assert len(users) >= 10
    assert [path.stem for path in users if "load_libraries(" not in path.read_text()] == []


def _loads_torch(source: str) -> bool:
    return "from lmft.assembly" in source


def test_lines_in_a_pipe_come_ever_rarer():
    lines = _Lines(lambda: "loading")
    lines.started = 0.0
    said = {now / 10: lines(now / 10).decode() for now in range(1000)}
    assert {now: line for now, line in said.items() if line} == {
        1.0: "loading …\n",
        10.0: "loading … 0:10\n",
        20.0: "loading … 0:20\n",
        40.0: "loading … 0:40\n",
        80.0: "loading … 1:20\n",
    }


PIPED = """
import time
from lmft.reporting.phase import phase
print("before")
with phase("a short one"):
    pass
with phase("a long one"):
    time.sleep(1.4)
with phase("at once", at_once=True):
    pass
print("after")
"""


def test_a_pipe_gets_plain_lines_of_what_takes_long():
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run([sys.executable, "-c", PIPED], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "a long one …\nat once …\n")
    together = subprocess.run(
        [sys.executable, "-c", PIPED], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert together.stdout == "before\na long one …\nat once …\nafter\n"


def test_without_colour_no_style_is_written(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    def work():
        with collecting_notices(), phase.phase("working"):
            busy()
            show("x")

    shown = called_on_terminal(work)
    assert "\x1b[1m" not in shown.raw and "\x1b[3" not in shown.raw
