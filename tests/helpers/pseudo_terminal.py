"""A terminal that a command writes on, read by a test: what it shows, and how long it stayed silent.

    python -m tests.helpers.pseudo_terminal 80 python -m lmft.train debug=fast

runs a command on a terminal of 80 columns, and prints its longest silences.
"""

import fcntl
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyte

from tests.helpers.forked import Forked

LINES = 40


@dataclass
class Shown:
    """What a command has written on its terminal."""

    columns: int
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    """(seconds since the start, bytes)"""
    seconds: float = 0.0
    exit_code: int | None = None

    @property
    def raw(self) -> str:
        """All that was written, with its control sequences."""
        return b"".join(chunk for _, chunk in self.chunks).decode()

    @property
    def lines(self) -> list[str]:
        """The lines that stay on the terminal at the end, those that have scrolled off included."""
        return self.lines_after(len(self.chunks))

    def lines_after(self, num_chunks: int) -> list[str]:
        """The lines on the terminal after so many of the chunks."""
        return lines_of(b"".join(chunk for _, chunk in self.chunks[:num_chunks]), self.columns)

    @property
    def silences(self) -> list[tuple[float, str]]:
        """(seconds without output, what was written then) in the order of time, the end included."""
        times = [at for at, _ in self.chunks]
        before = [0.0, *times]
        after = [*times, self.seconds]
        said = [*(chunk.decode(errors="replace") for _, chunk in self.chunks), "(the end)"]
        return [(stop - start, text) for start, stop, text in zip(before, after, said, strict=True)]


def lines_of(written: bytes | str, columns: int = 80) -> list[str]:
    """The lines that a terminal shows of what is written on it, those that have scrolled off included."""
    if isinstance(written, str):
        written = written.replace("\n", "\r\n").encode()
    screen = pyte.HistoryScreen(columns, LINES, history=100_000, ratio=0.5)
    pyte.ByteStream(screen).feed(written)
    above = ["".join(row[x].data for x in range(columns)) for row in screen.history.top]
    lines = [line.rstrip() for line in (*above, *screen.display)]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def on_terminal(home: Path, command: str, argv: Sequence[str], columns: int = 80) -> Shown:
    """A command of lmft in a process that has the modules of this one."""
    ours, its = _opened(columns)
    process = Forked(home, command, argv, output=its, columns=columns)
    os.close(its)
    shown = _read(ours, columns)
    shown.exit_code = process.wait()
    process.stdout.close()
    process.stderr.close()
    return shown


def called_on_terminal(function: Callable[[], object], columns: int = 80) -> Shown:
    """A function in a process of its own, whose stdout and stderr are a terminal."""
    ours, its = _opened(columns)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            for descriptor in (1, 2):
                os.dup2(its, descriptor)
            sys.stdout = os.fdopen(1, "w", 1, closefd=False)
            sys.stderr = os.fdopen(2, "w", 1, closefd=False)
            os.environ.update(TERM="xterm-256color", COLUMNS=str(columns))
            function()
            sys.stdout.flush()
            code = 0
        finally:
            os._exit(code)
    os.close(its)
    shown = _read(ours, columns)
    shown.exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return shown


def program_on_terminal(words: Sequence[str], columns: int = 80) -> Shown:
    """A program in a process of its own."""
    pid, ours = pty.fork()
    if not pid:
        os.environ["TERM"] = "xterm-256color"
        os.environ.pop("COLUMNS", None)
        os.execvp(words[0], words)
    _set_size(ours, columns)
    shown = _read(ours, columns)
    shown.exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return shown


def _opened(columns: int) -> tuple[int, int]:
    ours, its = pty.openpty()
    _set_size(its, columns)
    return ours, its


def _set_size(descriptor: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, columns, 0, 0))


def _read(terminal: int, columns: int) -> Shown:
    started = time.monotonic()
    shown = Shown(columns)
    while True:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # how Linux tells that the process has gone
            chunk = b""
        if not chunk:
            break
        shown.chunks.append((time.monotonic() - started, chunk))
    os.close(terminal)
    shown.seconds = time.monotonic() - started
    return shown


if __name__ == "__main__":
    result = program_on_terminal(sys.argv[2:], int(sys.argv[1]))
    print("\n".join(result.lines))
    print(f"\nlongest silences of {result.seconds:.1f} s, and what was written then:")
    for seconds, text in sorted(result.silences, reverse=True)[:5]:
        print(f"{seconds:6.2f} s  {text[:60]!r}")
