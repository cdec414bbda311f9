"""The base of launchers that run jobs in other processes: jobs, their results, and stopping them all."""

import signal
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.utils import JobReturn, configure_log
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lmft.cli.job import SweepJob
from lmft.cli.launchers.launch_folder import LaunchFolder
from lmft.cli.launchers.remote_job import RemoteJob, Result
from lmft.cli.launchers.shares import gpus_of_a_job, visible_gpus
from lmft.cli.sweep_folder import remove_hydra_record
from lmft.errors import UserError
from lmft.system.signals import Stopped, defer_signals, install_handlers, raise_signals, recorded_signal


class ParallelLauncher(Launcher):
    """Runs jobs by an engine that a subclass knows.

    A job whose process dies fails; the others continue. A signal stops all jobs, which save their
    checkpoints; then `Stopped` is raised.
    """

    stops_with_launcher: ClassVar[bool] = True
    """Whether jobs stop if this process is gone; a cluster's jobs continue."""
    _open: ClassVar[list["ParallelLauncher"]] = []

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives a launcher once, before any job."""
        # `hydra.main` passes what it was given: the job of a sweep.
        assert isinstance(task_function, SweepJob)
        self.job = task_function
        self.hydra_context = hydra_context
        self.config = config
        self.folder = LaunchFolder.of(Path(config.hydra.sweep.dir))
        self._opened = ExitStack()
        self._opened.enter_context(self.folder.opened())
        self._open.append(self)

    @classmethod
    def close_all(cls) -> None:
        """End the processes that launchers have started, and delete their files."""
        while cls._open:
            launcher = cls._open.pop()
            launcher.close()
            launcher._opened.close()

    def close(self) -> None:
        """End what the engine has started; by default there is nothing left."""
        return

    @abstractmethod
    def results(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result | str]]:
        """Run jobs; yield each as it ends, with its result, or with what its process died of."""

    def shares(self) -> list[dict[str, str]]:
        """Return the environment of each process of this machine; none if the engine assigns GPUs."""
        return []

    def environment(self) -> dict[str, str]:
        """Return the environment variables that jobs do not inherit from this process."""
        return {}

    def gpus(self) -> tuple[list[str], int]:
        """Return the GPUs of this machine for all jobs, and how many of them each job uses."""
        trainer = OmegaConf.select(self.config, "trainer") or {}
        if trainer.get("accelerator") == "cpu":
            return [], 1
        return visible_gpus(), gpus_of_a_job(trainer.get("devices"))

    def start(self) -> None:
        """Start the engine, if it has to be started; it cares for Ctrl-C itself."""
        return

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run a job for each list of overrides.

        Returns: how each job ended, in their order; a failed one returns NaN.

        Raises: UserError for options that the engine refuses. Stopped, after all jobs have stopped.
        """
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        self.start()
        remove_hydra_record(Path(self.config.hydra.sweep.dir))
        jobs = [
            self._remote(initial_job_idx + i, list(overrides))
            for i, overrides in enumerate(job_overrides)
        ]
        returns: dict[int, JobReturn] = {}
        with self._stopping_all():
            for job, result in self.results(jobs):
                if isinstance(result, str):
                    result = job.died(result)
                returns[job.number] = result.returned
                if result.outcome is not None:
                    self.job.sweep.record(result.outcome)
        signum = recorded_signal()
        if signum is not None:
            raise Stopped(signum)
        return [returns[job.number] for job in jobs]

    def _remote(self, number: int, overrides: list[str]) -> RemoteJob:
        return RemoteJob(
            job=self.job,
            number=number,
            overrides=overrides,
            hydra_overrides=_texts(self.config.hydra.overrides.hydra),
            config_name=self.config.hydra.job.config_name,
            job_name=self.config.hydra.job.name,
            hydra_context=self.hydra_context,
            launch_folder=self.folder,
            stops_with_launcher=self.stops_with_launcher,
            shares=self.shares(),
            environment=self.environment(),
        )

    @contextmanager
    def _stopping_all(self) -> Iterator[None]:
        """Defer signals in the block; the first one asks all jobs to stop.

        Processes that are started in the block never see Ctrl-C, which the terminal sends to all of
        them: an engine's own processes would end at once, and with them the jobs.
        """
        has_ended = threading.Event()

        def watch() -> None:
            while not has_ended.wait(0.2):
                if recorded_signal() is not None:
                    self.folder.ask_to_stop()
                    return

        install_handlers()
        defer_signals()
        # Begun before Ctrl-C is blocked for the main thread and what it starts, so this thread gets it.
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            has_ended.set()
            watcher.join()
            raise_signals()


def refuse_options(given: dict[str, Any], refused: dict[str, tuple[Any, str]]) -> None:
    """Raise UserError for an option of `hydra.launcher` that would not be heeded.

    refused: option -> (the only value that it may have, what to do instead).
    """
    for name, (only, fix) in refused.items():
        if given.get(name, only) != only:
            raise UserError(
                f"hydra.launcher.{name} is not used here", f"hydra.launcher.{name}={given[name]}", fix
            )


def _texts(node: Any) -> list[str]:
    """Return a config's list of texts, with the interpolations in them."""
    texts = OmegaConf.to_container(node, resolve=False)
    assert isinstance(texts, list)
    return [str(text) for text in texts]
