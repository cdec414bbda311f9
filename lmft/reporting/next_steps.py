"""Print where the results of a run are, and the commands to type next."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lmft.reporting.terminal import is_muted, record, terminal


def print_next_steps(
    results: Sequence[tuple[str, Path]],
    commands: Sequence[tuple[str, str]],
    console: Console | None = None,
) -> None:
    """Print paths and commands. Each command is on a line of its own, which is not broken, to be copied.

    Args:
        results: what there is, and where.
        commands: what a command does, and the command.
        console: where to print; None: the terminal.
    """
    console = console or terminal()
    lines = [Text(f"{what} {path}") for what, path in results]
    if commands:
        lines += [Text(""), Text("next", style="bold")]
    for what, command in commands:
        lines += [Text(f"  # {what}", style="dim"), Text(f"  {command}")]
    page = Text("\n").join(lines)
    if not is_muted():
        console.print(page, soft_wrap=True)
    record(f"\n{page.plain}")
