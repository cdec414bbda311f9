"""A text larger than memory allows for, by one and by two processes: speed, memory and equal stores.

The text is the one of `prepare`, repeated until it has the size of `--gigabytes`; a tenth of that is
measured too, as memory must not grow with the text.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Rounds, compared, value, values_of
from benchmarks.session import Session
from benchmarks.suites.prepare import SECTION, place

COMMAND = "python -m benchmarks corpus --gigabytes {:g}"
_GB = 1e9


class Different(RuntimeError):
    """Two stores of the same text are not equal."""


def run(session: Session) -> None:
    """Measure both sizes, each by two processes, and the small one by one."""
    gigabytes = 1e-3 if session.is_tiny else session.gigabytes
    text, tokenizer = place(session)
    sizes = {f"{size:g} GB": size for size in (gigabytes / 10, gigabytes)}
    small, large = sizes
    texts = {name: session.folder / f"{name}.txt" for name in sizes}
    for name, size in sizes.items():
        repeat(Path(text), texts[name], int(size * _GB))
    common: dict[str, Any] = {"tokenizer": tokenizer, "folder": str(session.folder)}
    rounds = session.in_turns(
        {
            large: session.side("suites.corpus:prepare", text=str(texts[large]), processes=2, **common),
            small: session.side("suites.corpus:prepare", text=str(texts[small]), processes=2, **common),
            "one process": session.side(
                "suites.corpus:prepare", text=str(texts[small]), processes=1, **common
            ),
        }
    )
    command = COMMAND.format(gigabytes)
    speeds = {"lmft": rounds[small], "one process": rounds["one process"]}
    of_small = compared(speeds, "mb_per_s", "MB/s")
    session.row(SECTION, f"{small} of text by two processes", command, of_small)
    session.row(SECTION, f"{large} of text by two processes", command, of_large(rounds, large))
    peaks = [value(values_of(rounds, name, "peak_gb"), "GB", of=name) for name in sizes if rounds[name]]
    session.row(SECTION, "peak memory of the largest of two processes", command, peaks)


def of_large(rounds: Rounds, large: str) -> list[dict[str, Any]]:
    """Return the seconds and the speed of the large text."""
    if not rounds[large]:
        return []
    seconds = value(values_of(rounds, large, "seconds"), "s")
    speed = value(values_of(rounds, large, "mb_per_s"), "MB/s")
    return [seconds, speed]


def repeat(text: Path, path: Path, size: int) -> None:
    """Write the lines of a text again and again, until the file has `size` bytes or a little more."""
    lines = text.read_bytes().splitlines(keepends=True)
    written = 0
    with path.open("wb") as file:
        for line in itertools.cycle(lines):
            written += file.write(line)
            if written >= size:
                return


def prepare(text: str, tokenizer: str, folder: str, processes: int) -> dict[str, float]:
    """Prepare a text by the command, and compare its store with that of an earlier call.

    Raises:
        Different: the store is not that of another number of processes.
    """
    cache = Path(tempfile.mkdtemp(dir=folder))
    given = ["model=distilbert", "model.from_scratch=true", f"model.tokenizer.name_or_path={tokenizer}"]
    given += ["data=files", f"data.train={text}", "data.validation_fraction=0"]
    given += [f"data.cache_dir={cache}", f"data.prepare_processes={processes}"]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}  # a process has one thread
    start = time.perf_counter()
    command = [sys.executable, "-m", "lmft.prepare", *given]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)  # of this process or of one that it waited for
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    (store,) = cache.glob("stores/*/store.json")  # has the checksums of its files
    known = Path(f"{text}.store.json")
    if known.exists() and known.read_bytes() != store.read_bytes():
        raise Different(f"{processes} processes: not the store of the calls before")
    shutil.move(store, known)
    shutil.rmtree(cache)
    peak = used.ru_maxrss if sys.platform == "darwin" else used.ru_maxrss * 1024
    mb_per_s = Path(text).stat().st_size / 1e6 / seconds
    return {"seconds": seconds, "mb_per_s": mb_per_s, "peak_gb": peak / _GB}
