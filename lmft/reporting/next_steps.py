"""Print where the results of a run are, and the commands to type next."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lmft.reporting.terminal import beside, is_muted, record, terminal

_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")  # of a shell
_INDENT = 2


def print_next_steps(
    results: Sequence[tuple[str, Path]],
    commands: Sequence[tuple[str, str]],
    console: Console | None = None,
) -> None:
    """Print paths and commands, which can be copied into a shell.

    A command is on a line of its own; on a terminal, a long one is continued after a backslash.

    Args:
        results: what there is, and where.
        commands: what a command does, and the command.
        console: where to print; None: the terminal.
    """
    console = console or terminal()
    if not is_muted():
        shown = [(what, _broken(command, console)) for what, command in commands]
        console.print(_page(results, shown), soft_wrap=True)
    record(f"\n{_page(results, commands).plain}")


def _page(results: Sequence[tuple[str, Path]], commands: Sequence[tuple[str, str]]) -> Text:
    lines = [Text(f"{what} {path}") for what, path in results]
    if commands:
        lines += [Text(""), Text("next", style="bold")]
    for what, command in commands:
        lines += [Text(f"  # {what}", style="dim"), Text(f"  {command}")]
    return Text("\n").join(lines)


def _broken(command: str, console: Console) -> str:
    """Return a command that a terminal shows without breaking its words."""
    if not console.is_terminal:
        return command
    width = console.width - 2 * _INDENT - len(" \\")
    return f" \\\n{' ' * 2 * _INDENT}".join(beside(_WORD.findall(command), " ", width))
