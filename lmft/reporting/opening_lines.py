"""Print the config that a run begins with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lmft.reporting.terminal import beside, show, terminal

_INDENT = 2


def print_config(arguments: Sequence[str], path: Path, console: Console | None = None) -> None:
    """Print the arguments that differ from the defaults, and where the whole config is.

    Args:
        arguments: `key=value`.
        path: the file with the whole config.
        console: where to print; None: the terminal.
    """
    console = console or terminal()
    title = "config, as far as it differs from the defaults"
    if not arguments:
        title = "config: the defaults"
    shown = Text("\n".join(beside(arguments, "  ", console.width - _INDENT)), overflow="fold")
    rest = Text(f"all options: --verbose, {path}", style="dim")
    show(Text(title, style="bold"), _indented(shown), _indented(rest), "", console=console)


def print_whole_config(settings: Mapping[str, Any], console: Console | None = None) -> None:
    """Print all options as YAML.

    Args:
        settings: the config, without secrets.
        console: where to print; None: the terminal.
    """
    text = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).rstrip()
    show(Text("config", style="bold"), _indented(Text(text, overflow="fold")), "", console=console)


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, _INDENT), expand=False)
