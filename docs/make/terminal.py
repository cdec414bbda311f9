"""The README's picture of a terminal, drawn from what a training writes on one.

python -m docs.make.terminal     trains as README does first, in an empty folder, and writes docs/run.svg anew
"""

import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import chdir
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from tests.helpers.pseudo_terminal import LINES, program_on_terminal

FILE = Path(__file__).parents[1] / "run.svg"
COMMAND = ("python", "-m", "lmft.train", "run.name=first", "trainer.max_epochs=3")
COLUMNS = 90
_DIM = 2  # codes of ECMA-48 for the appearance of characters
_BRIGHT_BLACK = 90
_OF_PALETTES = {38, 48}  # whose further numbers are colours
_FONTS = "ui-monospace, SFMono-Regular, Menlo, DejaVu Sans Mono, monospace"
_COLOURS = {"default": None, "brown": "yellow"}  # pyte's names that rich does not have


class _Screen(pyte.HistoryScreen):
    """A terminal whose dim characters are gray, as pyte does not know dim ones."""

    def select_graphic_rendition(self, *attrs: int, **further: Any) -> None:
        """Set the appearance of the characters that follow."""
        if not _OF_PALETTES & set(attrs):
            attrs = tuple(_BRIGHT_BLACK if attr == _DIM else attr for attr in attrs)
        super().select_graphic_rendition(*attrs, **further)


def _colour(name: str) -> str | None:
    if name in _COLOURS:
        return _COLOURS[name]
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return re.sub(r"^bright(?!_)", "bright_", name.replace("brown", "yellow"))


def _style(shown: Any) -> Style:
    return Style(color=_colour(shown.fg), bold=shown.bold, italic=shown.italics, reverse=shown.reverse)


def _line(row: Mapping[int, Any], columns: int) -> Text:
    """A row of a screen."""
    line = Text(no_wrap=True)
    characters = [row[column] for column in range(columns)]
    for style, alike in groupby(characters, _style):
        line.append("".join(shown.data for shown in alike), style)
    line.rstrip()
    return line


def lines(written: bytes, columns: int) -> list[Text]:
    """The lines that stay on a terminal, those that have scrolled off included, without empty ones at the end."""
    screen = _Screen(columns, LINES, history=100_000, ratio=0.5)
    pyte.ByteStream(screen).feed(written)
    rows = [*screen.history.top, *(screen.buffer[number] for number in range(LINES))]
    found = [_line(row, columns) for row in rows]
    while found and not found[-1].plain:
        found.pop()
    return found


def without_middle(shown: list[Text], first: str, after: str) -> list[Text]:
    """Lines of which "…" stands for those from one that begins with `first` to before one that begins with `after`."""
    start = next(number for number, line in enumerate(shown) if line.plain.startswith(first))
    stop = next(number for number, line in enumerate(shown) if number > start and line.plain.startswith(after))
    return [*shown[:start], Text("…"), *shown[stop:]]


def picture(shown: list[Text], columns: int, title: str) -> str:
    """Lines of a terminal as SVG, which takes no font from the network."""
    console = Console(record=True, file=io.StringIO(), width=columns, force_terminal=True, color_system="truecolor")
    for line in shown:
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title=title, theme=SVG_EXPORT_THEME, unique_id="run")
    without_fonts = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    # A picture without a size is shown as one of 150 pixels by pages that do not say how wide it should be.
    sized = re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', r'width="\1" height="\2" \g<0>', without_fonts, count=1)
    fonts = sized.replace("Fira Code, monospace", _FONTS)
    return "\n".join(line.rstrip() for line in fonts.splitlines()) + "\n"


def written_by(command: tuple[str, ...], columns: int) -> bytes:
    """What a command writes on a terminal, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["LMFT_CACHE"] = f"{folder}/cache"
        shown = program_on_terminal([sys.executable, *command[1:]], columns)
    if shown.exit_code:
        raise SystemExit(shown.raw)
    return b"".join(chunk for _, chunk in shown.chunks)


def drawn(written: bytes) -> str:
    """The picture of what the command has written: its first facts, and all from the first epoch on."""
    typed = Text(f"$ {' '.join(COMMAND)}", style="bold")
    shown = without_middle([typed, *lines(written, COLUMNS)], "config, as far as it differs", "step ")
    below = Text()  # room for what hangs below the last line's letters
    return picture([*shown, below], COLUMNS, "lmft")


if __name__ == "__main__":
    FILE.write_text(drawn(written_by(COMMAND, COLUMNS)), "utf-8")
