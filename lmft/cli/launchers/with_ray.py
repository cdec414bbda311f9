"""Run jobs as tasks of a Ray cluster."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lmft.cli.launchers.base import ParallelLauncher
from lmft.cli.launchers.remote_job import RemoteJob, Result
from lmft.cli.sweep_secrets import secrets_in_environment
from lmft.errors import UserError
from lmft.system.signals import install_handlers

# Bytes of the memory that Ray shares arrays in; jobs share none.
_OBJECT_STORE = 78 * 2**20


class RayLauncher(ParallelLauncher):
    """Takes the arguments of `ray.init` and of `ray.remote`."""

    def __init__(self, ray: DictConfig):
        given = OmegaConf.to_container(ray, resolve=True)
        assert isinstance(given, dict)
        self._init = {name: value for name, value in given["init"].items() if value is not None}
        self._remote_options = {
            name: value for name, value in given["remote"].items() if value is not None
        }
        self._has_started = False

    def results(self, jobs: Sequence[RemoteJob]) -> Iterator[tuple[RemoteJob, Result | str]]:
        """Run jobs; yield each as it ends, with its result, or with what its process died of."""
        import ray
        from ray.exceptions import RayError

        task = ray.remote(**self._of_a_job())(RemoteJob.__call__)
        running = {task.remote(job): job for job in jobs}
        while running:
            done, _ = ray.wait(list(running), timeout=0.5)
            for reference in done:
                job = running.pop(reference)
                try:
                    yield job, ray.get(reference)
                except RayError as error:
                    yield job, f"its process was killed: {str(error).strip().partition(chr(10))[0]}"

    def start(self) -> None:
        """Start a cluster, or join the one that is named."""
        import ray

        if ray.is_initialized():
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING", **self._init}
        if "address" not in options:
            options = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE, **options}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TypeError) as error:
            what = f"Ray did not start: {str(error).strip().partition(chr(10))[0]}"
            raise UserError(what, f"hydra.launcher.ray.init={self._init}") from error
        self._has_started = True
        install_handlers()  # Ray has a handler of its own for SIGTERM

    def _of_a_job(self) -> dict[str, Any]:
        import ray

        available = ray.cluster_resources()
        options = {"num_gpus": min(1, available.get("GPU", 0)), **self._remote_options}
        for option, resource in {"num_cpus": "CPU", "num_gpus": "GPU"}.items():
            most = available.get(resource, 0)
            if options.get(option, 0) > most:
                what = f"a job takes {options[option]} {resource}s, and the cluster has {most:g}"
                where = f"hydra.launcher.ray.remote.{option}={options[option]}"
                raise UserError(what, where, "a smaller number, or a larger cluster")
        return options

    def environment(self) -> dict[str, str]:
        """Return what jobs do not inherit: the processes of a cluster have their own environment."""
        passed = secrets_in_environment()
        threads = os.environ.get("OMP_NUM_THREADS")
        return {**passed, "OMP_NUM_THREADS": threads} if threads else passed

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._has_started:
            import ray

            ray.shutdown()
