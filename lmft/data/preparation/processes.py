"""Several processes tokenise the shards of a source, each the next one that none has begun."""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from lmft.data.preparation.job import Job
from lmft.errors import UserError

log = logging.getLogger(__name__)
_MODULE = "lmft.data.preparation.worker"
_SECONDS = 0.2  # between two looks at the progress
# A process has one core: its tokenizer starts no threads.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def in_processes(
    job: Job,
    numbers: Iterator[int],
    folders: Sequence[Path],
    num_processes: int,
    advance: Callable[[int], object],
) -> None:
    """Tokenise shards in processes, which end with this one. Nothing is done if the job cannot be sent.

    Args:
        job: the job.
        numbers: of its shards that are tokenised; each is taken when a process is free.
        folders: of all its shards' parts.
        num_processes: how many processes.
        advance: called, in this thread, with the bytes that were read since its last call.

    Raises: UserError; of several errors, that of the first shard. Shards that come before it are done.
    """
    try:
        described = pickle.dumps((job, [str(folder.absolute()) for folder in folders]))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        log.info(
            "one process tokenises, since tokenizer or objective cannot be sent to others: %s", error
        )
        return
    sent = pickle.dumps((sys.path, described))  # where its modules are has to be known first
    failed: dict[int, Exception] = {}
    read: SimpleQueue[int] = SimpleQueue()
    workers = [_Worker(sent, read) for _ in range(num_processes)]
    with ThreadPoolExecutor(num_processes) as pool:
        try:
            running: dict[Future[Exception | None], tuple[_Worker, int]] = {}
            idle = [*workers]
            is_over = False
            while running or not is_over:
                while idle and not is_over:
                    number = None if failed else next(numbers, None)
                    if number is None:
                        is_over = True
                        break
                    worker = idle.pop()
                    running[pool.submit(worker.tokenise, number)] = worker, number
                for future in wait(running, _SECONDS, FIRST_COMPLETED).done:
                    worker, number = running.pop(future)
                    idle.append(worker)
                    error = future.result()
                    if error is not None:
                        failed[number] = error
                _show(read, advance)
        finally:
            for worker in workers:
                worker.end()
    if failed:
        raise failed[min(failed)]


def _show(read: "SimpleQueue[int]", advance: Callable[[int], object]) -> None:
    num_bytes = 0
    while True:
        try:
            num_bytes += read.get_nowait()
        except Empty:
            break
    if num_bytes:
        advance(num_bytes)


class _Worker:
    """A process that tokenises one shard after another."""

    def __init__(self, job: bytes, read: "SimpleQueue[int]"):
        self.read = read
        command = [sys.executable, "-c", f"from {_MODULE} import main; main()"]
        self.process: Any = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.job: bytes | None = job

    def tokenise(self, number: int) -> Exception | None:
        """Let the process tokenise a shard; return what it raised, if anything."""
        try:
            if self.job is not None:
                self.process.stdin.write(self.job)
                self.job = None
            pickle.dump(number, self.process.stdin)
            self.process.stdin.flush()
            while True:
                answer = pickle.load(self.process.stdout)
                if not isinstance(answer, int):
                    return answer
                self.read.put(answer)
        except (OSError, EOFError, pickle.UnpicklingError):
            return self._death()

    def _death(self) -> UserError:
        code = self.process.wait()
        what = f"a tokenising process died (exit code {code}), perhaps because memory was full"
        fix = "run the command again, it continues; data.prepare_processes=1 takes less memory"
        return UserError(what, "data.prepare_processes", fix)

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # what was still to be written has no reader
