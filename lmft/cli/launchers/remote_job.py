"""A job of a sweep in another process, perhaps on another machine."""

import io
import math
import os
import signal
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from lmft.cli.job import SweepJob
from lmft.cli.job_end import Outcome
from lmft.cli.launchers.launch_folder import LaunchFolder
from lmft.config.hydra_config import HYDRA_VERSION
from lmft.runs.log import buffering_logs
from lmft.system.signals import Stopped, handling_signals


@dataclass(frozen=True)
class Result:
    """The result that a job sends back."""

    returned: JobReturn
    """For the sweeper; without the config, which may hold secrets."""
    outcome: Outcome | None
    """None if it did not begin, because all jobs had to stop."""


@dataclass(frozen=True)
class RemoteJob:
    """All that another process needs to run a job.

    It is pickled, by submitit into a file; it holds no secret unless `environment` is set.
    """

    job: SweepJob
    number: int
    """From 0."""
    overrides: list[str]
    hydra_overrides: list[str]
    """The overrides of Hydra's own node."""
    config_name: str
    job_name: str
    hydra_context: HydraContext
    launch_folder: LaunchFolder
    stops_with_launcher: bool
    """Whether to stop if the launcher's process is gone."""
    shares: list[dict[str, str]] = field(default_factory=list)
    """Environment variables of each process that runs jobs at the same time."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables that the process does not inherit."""
    working_folder: str = field(default_factory=os.getcwd)

    def __call__(self) -> Result:
        """Run the job, by the composed config of its overrides."""
        self._prepare_process()
        if self.launch_folder.is_asked_to_stop(self.stops_with_launcher):
            return Result(self.returned(math.nan), None)
        outcomes: list[Outcome] = []
        output = io.StringIO()
        running = self.launch_folder.running(self.number, self.stops_with_launcher)
        with handling_signals():
            try:
                with running, redirect_stdout(output), buffering_logs():
                    returned = self._run(outcomes)
            except Stopped as stopped:
                returned = self.returned(math.nan)
                # The signal may have come when the job had just ended.
                outcomes = outcomes or [self._stopped(stopped)]
            except Exception as error:  # of composing the config: the job's own are outcomes
                return self._failed(
                    f"job-{self.number}", f"{type(error).__name__}: {error}".partition("\n")[0]
                )
        [outcome] = outcomes
        return Result(returned, replace(outcome, output=output.getvalue()))

    def died(self, reason: str) -> Result:
        """Return the result of the job if its process has left none."""
        return self._failed(self._folder_name(), reason)

    def _failed(self, name: str, reason: str) -> Result:
        failure = {"status": "failed", "error": reason, "exit_code": 1}
        return Result(
            self.returned(math.nan), Outcome(name, f"{self._label(name)}: failed: {reason}", failure)
        )

    def returned(self, value: float | None) -> JobReturn:
        """Return what the sweeper gets."""
        returned = JobReturn(
            overrides=self.overrides, task_name=self.job_name, status=JobStatus.COMPLETED
        )
        returned.return_value = value
        return returned

    def _prepare_process(self) -> None:
        # Between jobs, Ctrl-C would end this process, which its engine takes for a crash.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.chdir(self.working_folder)
        # A trainer of several devices starts the module of this process again: for the command.
        sys.modules["__main__"].__spec__ = find_spec(f"lmft.{self.job.command}")
        if not {"", self.working_folder} & set(sys.path):
            sys.path.append(self.working_folder)  # for the user's own classes
        os.environ.update(self.environment)
        cores = os.environ.get("SLURM_CPUS_PER_TASK")
        if cores is not None:
            os.environ.setdefault("OMP_NUM_THREADS", cores)
        if self.shares:
            self.launch_folder.take_share(self.shares)
        threads = os.environ.get("OMP_NUM_THREADS")
        if threads is not None:
            os.environ.setdefault("RAYON_NUM_THREADS", threads)  # of the tokenizer

    def _run(self, outcomes: list[Outcome]) -> JobReturn:
        composed = self._composed()
        HydraConfig.instance().set_config(composed)
        full = run_job(
            hydra_context=self.hydra_context,
            task_function=lambda config: self.job.run(config, outcomes.append),
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        return self.returned(full.return_value)

    def _composed(self) -> DictConfig:
        setup_globals()
        version.setbase(HYDRA_VERSION)
        JobRuntime.instance().set("name", self.job_name)
        master = {"overrides": {"hydra": self.hydra_overrides}, "job": {"config_name": self.config_name}}
        composed = self.hydra_context.config_loader.load_sweep_config(
            OmegaConf.create({"hydra": master}), self.overrides
        )
        with open_dict(composed):
            composed.hydra.job.id = f"{self.job_name}_{self.number}"
            composed.hydra.job.num = self.number
        return composed

    def _stopped(self, stopped: Stopped) -> Outcome:
        what = str(stopped).partition("\n")[0]
        failure = {"status": "stopped", "error": what, "exit_code": stopped.exit_code}
        name = self._folder_name()
        return Outcome(name, f"{self._label(name)}: {what}", failure)

    def _folder_name(self) -> str:
        composed = self._composed()
        HydraConfig.instance().set_config(composed)
        return Path(str(composed.hydra.sweep.subdir)).name

    def _label(self, name: str) -> str:
        return self.job.sweep.label(self.number + 1, name)
