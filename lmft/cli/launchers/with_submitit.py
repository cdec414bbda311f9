"""Run jobs by submitit: in processes of this machine, or on a SLURM cluster."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import OmegaConf

from lmft.cli.launchers.base import ParallelLauncher
from lmft.cli.launchers.remote_job import RemoteJob, Result
from lmft.cli.launchers.shares import num_cores, shares
from lmft.errors import UserError

_SECONDS = 0.2  # between two looks at all jobs of this machine
_SECONDS_OF_SLURM = 2.0  # their files are on a network's disk
_PLUGINS_FOLDER = ".submitit"
_OF_ALL_CLUSTERS = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"),
    "stderr_to_stdout",
)


@dataclass(frozen=True)
class _Submitted:
    """The function that submitit calls: a job, saved and queued again if preempted or out of time.

    submitit's own handler of that signal would queue it again without a checkpoint of the last steps.
    """

    job: RemoteJob

    def __call__(self) -> Result:
        from submitit.core.job_environment import JobEnvironment

        signum = JobEnvironment._usr_sig()
        queue_again = signal.getsignal(signum)
        was_preempted = threading.Event()

        def save(*_: Any) -> None:
            was_preempted.set()
            os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signum, save)
        result = self.job()
        has_stopped = result.outcome is not None and result.outcome.was_stopped
        if was_preempted.is_set() and has_stopped and callable(queue_again):
            queue_again(signum, None)
        return result

    def checkpoint(self) -> Any:
        """Return what is queued again: the same, since a run continues from its checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class _SubmititLauncher(ParallelLauncher):
    cluster: ClassVar[str]

    def __init__(self, submitit_folder: str, max_num_timeout: int | None = None, **options: Any):
        self._given_folder = Path(submitit_folder)
        self._max_num_timeout = max_num_timeout
        self._options: dict[str, Any] = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in options.items()
        }

    def _executor(self) -> Any:
        import submitit

        folder = self._given_folder
        if folder.parent.name == _PLUGINS_FOLDER:  # the default of Hydra's launcher
            folder = self.folder.path / "submitit" / "%j"
        timeouts = {}
        if self._max_num_timeout is not None:
            timeouts = {f"{self.cluster}_max_num_timeout": self._max_num_timeout}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster, **timeouts)
            executor.update_parameters(**self._parameters())
        except (RuntimeError, ValueError, NameError) as error:
            what = str(error).partition("\n")[0]
            raise UserError(what, "hydra.launcher", "`--cfg hydra` shows its options") from error
        return executor

    def _parameters(self) -> dict[str, Any]:
        return {
            name if name in _OF_ALL_CLUSTERS else f"{self.cluster}_{name}": value
            for name, value in self._options.items()
            if value is not None
        }


def _result_of(submitted: Any) -> Result | str:
    """Return the result of a job that has ended, or what its process died of."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return submitted.results()[0]
    except (UncompletedJobError, FailedJobError):
        return _death_of(submitted)


def _death_of(submitted: Any) -> str:
    lines = (submitted.stderr() or "").strip().splitlines()
    told = [line.strip() for line in lines if not line.startswith("submitit ")]
    return f"its process was killed{': ' + told[-1] if told else ''}"


class LocalLauncher(_SubmititLauncher):
    """Starts a process for each job, as many at a time as GPUs or cores allow."""

    cluster = "local"

    def results(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result | str]]:
        """Run jobs; yield each as it ends, with its result, or with what its process died of."""
        executor = self._executor()
        waiting = list(jobs)
        running: list[tuple[RemoteJob, Any]] = []
        while waiting or running:
            while waiting and len(running) < len(self.shares()):
                job = waiting.pop(0)
                running.append((job, executor.submit(_Submitted(job))))
            ended = [(job, submitted) for job, submitted in running if submitted.done()]
            running = [pair for pair in running if pair not in ended]
            for job, submitted in ended:
                # submitit would wait for the file of a slow file system; this is the local one.
                has_result = submitted.paths.result_pickle.exists()
                yield job, _result_of(submitted) if has_result else _death_of(submitted)
            if not ended:
                time.sleep(_SECONDS)

    def _parameters(self) -> dict[str, Any]:
        # Without GPUs of submitit's, which would give the first ones to every job.
        return {**super()._parameters(), "gpus_per_node": 0}

    def shares(self) -> list[dict[str, str]]:
        """Return the environment of each process."""
        return self._shares

    @cached_property
    def _shares(self) -> list[dict[str, str]]:
        gpus, gpus_each = self.gpus()
        gpus_each = self._options["gpus_per_node"] or gpus_each
        if len(gpus) < gpus_each and self._options["gpus_per_node"]:
            what = f"a job takes {gpus_each} GPUs, and {len(gpus)} are visible"
            raise UserError(
                what, f"hydra.launcher.gpus_per_node={gpus_each}", "a smaller number, or null"
            )
        cores_each = self._options["cpus_per_task"]
        num_processes = len(gpus) // gpus_each if gpus else num_cores()
        if cores_each is not None:
            by_cores = max(1, num_cores() // cores_each)
            num_processes = min(num_processes, by_cores) if gpus else by_cores
        return shares(max(1, num_processes), gpus, gpus_each)


class SlurmLauncher(_SubmititLauncher):
    """Submits an array with all jobs, and waits for them. They continue if this process ends."""

    cluster = "slurm"
    stops_with_launcher = False

    def results(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result | str]]:
        """Run jobs; yield each as it ends, with its result, or with what its process died of."""
        if shutil.which("srun") is None:
            what = "there is no SLURM on this machine: no program srun"
            raise UserError(what, "launcher=slurm", "run this on a login node, or launcher=joblib")
        executor = self._executor()
        submitted = executor.submit_array([_Submitted(job) for job in jobs])
        running = list(zip(jobs, submitted, strict=True))
        while running:
            # submitit asks sacct, at most every ten minutes, of jobs that have left no result.
            ended = [(job, task) for job, task in running if task.done()]
            running = [pair for pair in running if pair not in ended]
            yield from ((job, _result_of(task)) for job, task in ended)
            if not ended:
                time.sleep(_SECONDS_OF_SLURM)
