"""Run jobs in processes of this machine: those of joblib, which are loky's."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property
from typing import Any

from lmft.cli.launchers.base import ParallelLauncher, refuse_options
from lmft.cli.launchers.remote_job import RemoteJob, Result
from lmft.cli.launchers.shares import num_cores, shares
from lmft.errors import UserError

_ONE_BY_ONE = "leave it out: each job is given to a process when one is free"
_IN_PROCESSES = "leave it out: jobs always run in processes"
_REFUSED = {
    "backend": (None, _IN_PROCESSES),
    "prefer": ("processes", _IN_PROCESSES),
    "require": (None, _IN_PROCESSES),
    "timeout": (None, "trainer.max_time ends a job; joblib would end all of them"),
    "verbose": (0, "leave it out: each job prints a line"),
    "pre_dispatch": ("2*n_jobs", _ONE_BY_ONE),
    "batch_size": ("auto", _ONE_BY_ONE),
    "temp_folder": (None, "leave it out: jobs get no arrays"),
    "max_nbytes": (None, "leave it out: jobs get no arrays"),
    "mmap_mode": ("r", "leave it out: jobs get no arrays"),
}


class JoblibLauncher(ParallelLauncher):
    """Runs `n_jobs` jobs at a time."""

    def __init__(self, n_jobs: int, **options: Any):
        refuse_options(options, _REFUSED)
        if n_jobs == 0:
            raise UserError(
                "no job could run", "hydra.launcher.n_jobs=0", "1 or more; -1: as many as fit"
            )
        self._n_jobs = n_jobs

    def results(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result | str]]:
        """Run jobs; yield each as it ends, with its result, or with what its process died of.

        If a process dies, loky ends all others as well. The jobs that were running then continue, one
        at a time, after the others: so the one whose process dies again is known.
        """
        waiting = {job.number: job for job in jobs}
        suspects: dict[int, RemoteJob] = {}
        while waiting or suspects:
            group = waiting or dict([suspects.popitem()])
            try:
                for job, result in self._run(list(group.values())):
                    del group[job.number]
                    yield job, result
            except BrokenProcessPool:
                if group is not waiting:
                    [job] = group.values()
                    yield job, "its process was killed, perhaps because the memory was full"
                    continue
                begun = [number for number in group if self.folder.has_begun(number)]
                suspects |= {number: group.pop(number) for number in begun or list(group)}

    def _run(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result]]:
        executor = _processes(max_workers=len(self.shares()), timeout=None)
        running = {executor.submit(job): job for job in jobs}
        while running:
            for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                yield job, future.result()

    def shares(self) -> list[dict[str, str]]:
        """Return the environment of each process."""
        return self._shares

    @cached_property
    def _shares(self) -> list[dict[str, str]]:
        gpus, gpus_each = self.gpus()
        num_processes = self._n_jobs
        if num_processes < 0:
            available = len(gpus) // gpus_each if gpus else num_cores()
            num_processes = max(1, available + 1 + num_processes)
        num_jobs = self.job.sweep.num_jobs
        if num_jobs is not None:
            num_processes = min(num_processes, num_jobs)
        return shares(num_processes, gpus, gpus_each)

    def close(self) -> None:
        """End the processes."""
        _processes().shutdown(wait=True)


def _processes(**options: Any) -> Any:
    """Return loky's executor, which is made once."""
    from joblib.externals import loky

    get_executor: Any = loky.get_reusable_executor  # its own types leave out values that it takes
    return get_executor(**options, reuse=True)
