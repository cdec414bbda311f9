"""The reference of commands: what `--help` of each of them prints."""

import subprocess
import sys

from lmft.__main__ import commands

INTRODUCTION = """# Commands

`lmft train` is short for `python -m lmft.train`, and so is each of the others. This page is made from `--help`.
[Options](options/index.md) explains what can follow a command.

"""


def help_of(command: str) -> str:
    """Return what a command prints for `--help`."""
    words = [sys.executable, "-m", f"lmft.{command}", "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def page() -> str:
    """Return the page, in Markdown."""
    summaries = commands()
    rows = [f"| [`lmft {name}`](#lmft-{name}) | {summary} |" for name, summary in summaries.items()]
    table = "\n".join(["| command | what it does |", "|---|---|", *rows])
    return "\n\n".join([INTRODUCTION + table, *(_section(name) for name in summaries)]) + "\n"


def _section(command: str) -> str:
    return f"## lmft {command}\n\n```text\n{help_of(command)}\n```"
