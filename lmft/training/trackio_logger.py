"""A Lightning logger of Trackio, which Lightning has none for."""

import os
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


class TrackioLogger(Logger):
    """Logs a run to Trackio, whose records lie in the folder of the variable TRACKIO_DIR.

    Args:
        project: Trackio's project.
        name: the run's name.
        resume: `never`: a new record; `must` or `allow`: the project's latest record of that name.
        group: the group of runs that it belongs to.
        space_id: Space of the hub that it is logged to, instead of a folder.
        server_url: server that it is logged to, instead of a folder.
        private: whether the Space is private.
        auto_log_gpu: whether the GPU's use is logged; None: if Trackio can.
        auto_log_cpu: whether the CPU's use is logged; None: if Trackio can.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        resume: str = "never",
        group: str | None = None,
        space_id: str | None = None,
        server_url: str | None = None,
        private: bool | None = None,
        auto_log_gpu: bool | None = None,
        auto_log_cpu: bool | None = None,
    ):
        super().__init__()
        self.project = project
        self.run_name = name
        self._options = {
            "name": name,
            "resume": resume,
            "group": group,
            "space_id": space_id,
            "server_url": server_url,
            "private": private,
            "auto_log_gpu": auto_log_gpu,
            "auto_log_cpu": auto_log_cpu,
        }
        self._run: Any = None

    @property
    def is_remote(self) -> bool:
        """True if the record is on a Space or a server."""
        names = ("space_id", "server_url")
        return any(self._options[name] for name in names) or any(
            os.environ.get(f"TRACKIO_{name.upper()}") for name in names
        )

    @property
    def name(self) -> str:
        """Trackio's project."""
        return self.project

    @property
    def version(self) -> str:
        """The run's name in the project."""
        return self.run_name or ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The Run of Trackio, which the first access starts."""
        if self._run is None:
            import trackio

            self._run = trackio.init(project=self.project, embed=False, **self._options)
        return self._run

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add to the run's config, which Trackio stores with the next metrics."""
        given = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update(given)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers, or objects of Trackio, at an optimizer step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Store what is still in the queue, and end the run in this process."""
        if self._run is not None:
            import trackio

            self._run = None
            trackio.finish()
