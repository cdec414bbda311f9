"""The process that tokenises shards for another one, which sends it the job and numbers of shards.

It answers with the bytes that it has read, and at the end of a shard with None, or what was raised. It
ends with the process that started it, as the numbers then end.
"""

import os
import pickle
import signal
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO


def main() -> None:
    """Run the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it ends it
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    path, described = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    job, folders = pickle.loads(described)
    numbers: SimpleQueue[int] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, numbers), daemon=True).start()
    format = job.format()
    while True:
        number = numbers.get()
        answer = _tokenised(job.shards[number], format, Path(folders[number]), answers)
        _send(answer, answers)


def _listen(stream: BinaryIO, numbers: "SimpleQueue[int]") -> None:
    """Take numbers of shards until the other process is gone; then end this one."""
    while True:
        try:
            numbers.put(pickle.load(stream))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(1)


def _tokenised(shard, format, folder: Path, answers: BinaryIO) -> Exception | None:
    from lmft.data.preparation.part import tokenise_apart

    try:
        tokenise_apart(shard, format, folder, lambda num_bytes: _send(num_bytes, answers), waits=False)
    except Exception as error:  # told to the process that asked
        return error
    return None


def _send(answer: int | Exception | None, answers: BinaryIO) -> None:
    try:
        content = pickle.dumps(answer)
    except (pickle.PicklingError, AttributeError, TypeError):
        content = pickle.dumps(RuntimeError(repr(answer)))
    answers.write(content)
    answers.flush()
