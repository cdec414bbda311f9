"""The command lines that are printed in the documentation and at the head of each YAML."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from lmft.__main__ import commands
from lmft.cli.paths import with_paths
from lmft.commands.compare import with_options
from lmft.config.shipped import config_dir
from tests.helpers.runs import CHECKOUT

DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")])
YAMLS = sorted(file for file in config_dir().rglob("*.yaml") if file.stem != "_base")  # which nobody chooses

# What is meant to be typed, in whatever form it stands: `python -m lmft…`, `lmft train …`, `lmft.train key=value`.
COMMANDS = commands()
LOOKS = re.compile(rf"-m\s+lmft\b|\blmft (?:{'|'.join(COMMANDS)})\b|\blmft\.\w+\s+(?=[\w.+~@]+=)")
_BEFORE = re.compile(r"python|time|srun|\w+=\S*")  # words that may stand before the command
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_READ_BY_SHELLS = re.compile(r"[][*?{}()$&|;<>`\\]")  # unless quoted; a pattern without a match is an error to zsh
_ARGUMENT = re.compile(r"--[a-z-]+|[~+]*[\w.@/]+=.*", re.DOTALL)
_FLAGS_WITH_A_VALUE = ("--cfg", "--config-dir")
_FOLDER = re.compile(r"\w+/[\w./*-]+")  # which `compare` and `watch` take without a key


@dataclass(frozen=True)
class Printed:
    """A command line as it is printed."""

    file: Path
    line: int
    command: str
    argv: tuple[str, ...]

    @property
    def typed(self) -> str:
        """The command and its arguments, as a shell takes them."""
        return shlex.join([self.command, *self.argv])

    @property
    def options(self) -> list[str]:
        """Its arguments with a key each."""
        if self.command == "watch":
            return with_paths(self.argv, "runs")
        return with_options(self.argv) if self.command == "compare" else [*self.argv]

    @property
    def given(self) -> dict[str, str]:
        """Its `key=value` arguments."""
        parted = (word.partition("=") for word in self.argv if not word.startswith("-"))
        return {key.lstrip("+~"): value for key, equals, value in parted if equals}


def commands_in(file: Path) -> Iterator[Printed]:
    """Every command line in a Markdown file, or in the comment that a YAML begins with.

    Raises ValueError for one that nobody could type.
    """
    lines = file.read_text("utf-8").splitlines()
    for number, text in _code_of_yaml(lines) if file.suffix == ".yaml" else _code_of_markdown(lines):
        if LOOKS.search(text):
            try:
                command, argv = _parsed(text)
            except ValueError as error:
                raise ValueError(f"{file.name}, line {number}: {error}: {text}") from None
            yield Printed(file, number, command, argv)


def num_that_look_like_commands(file: Path) -> int:
    """How many command lines a file seems to hold, wherever in it they stand."""
    return len(LOOKS.findall(file.read_text("utf-8")))


def _code_of_yaml(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Number and text of each line of the comment at the head, without the remark behind two spaces."""
    for number, line in enumerate(takewhile(lambda line: line.startswith("#"), lines), 1):
        yield number, re.split(r" {2,}", line.removeprefix("# "), maxsplit=1)[0]


def _code_of_markdown(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Number and text of each line of a code block, without its comment, and of each span of code in a line."""
    is_block = False
    for number, line in enumerate(lines, 1):
        if line.startswith("```"):
            is_block = not is_block
        elif is_block:
            yield number, re.sub(r"(^|\s)#.*", "", line)
        else:
            yield from ((number, span) for span in re.findall(r"`([^`]+)`", line))


def _parsed(text: str) -> tuple[str, tuple[str, ...]]:
    if found := _READ_BY_SHELLS.search(_QUOTED.sub("", text)):
        raise ValueError(f"{found[0]} is not quoted")
    words = shlex.split(text)
    start = next((place for place, word in enumerate(words) if word == "-m" or word == "lmft"), len(words))
    before, rest = words[:start], words[start:]
    if rest[:1] == ["-m"]:
        name, is_module, rest = rest[1], before[-1:] == ["python"], rest[2:]
        command = name.removeprefix("lmft.")
    else:
        name, is_module, rest = " ".join(rest[:2]), "python" not in before, rest[2:]
        command = name.removeprefix("lmft ")
    if not is_module or command not in COMMANDS or not all(map(_BEFORE.fullmatch, before)):
        raise ValueError("no command that there is")
    values = {place + 1 for place, word in enumerate(rest) if word in _FLAGS_WITH_A_VALUE}
    for place, word in enumerate(rest):
        is_folder = command in ("compare", "watch") and _FOLDER.fullmatch(word)
        if place not in values and not is_folder and not _ARGUMENT.fullmatch(word):
            raise ValueError(f"{word!r} is no argument")
    return command, tuple(rest)
