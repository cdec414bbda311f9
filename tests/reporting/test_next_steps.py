"""Suggested commands can be copied into a shell from a terminal of any width, and are one line in a pipe."""

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from lmft.reporting.next_steps import print_next_steps

COMMAND = "python -m lmft.predict run=runs/x prompt='a text with  blanks \\\\ and \"quotes\"' trust.targets=[a.B]"


def printed(width, is_terminal):
    page = io.StringIO()
    console = Console(file=page, width=width, force_terminal=is_terminal, color_system=None)
    print_next_steps([("the model is in", Path("runs/x/model"))], [("ask it", COMMAND)], console)
    return page.getvalue()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_command_on_a_terminal_is_the_same_for_a_shell(width):
    _, _, shown = printed(width, True).partition("# ask it\n")
    assert shlex.split(shown.replace("\\\n", "")) == shlex.split(COMMAND)  # as a shell reads it
    longest = max(map(len, shlex.split(COMMAND)))
    assert max(map(len, shown.splitlines())) <= max(width, longest + 12)
    assert ("\\\n" in shown) == (width < len(COMMAND))


def test_a_command_in_a_pipe_is_one_line():
    assert f"\n  {COMMAND}\n" in printed(20, False)
