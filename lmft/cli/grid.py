"""The sweeper of a grid: a job for each combination of values."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from lmft.sweeps.launching import LaunchingSweeper

OF_HYDRA = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"


class Grid(LaunchingSweeper):
    """A sweeper like Hydra's own, which begins sooner and writes no copy of the config.

    Hydra's own composes the config of every job before the first one begins. Here one job for each
    combination of YAMLs is composed; the values are checked when the command line is.

    Args:
        max_batch_size: jobs that are given to the launcher at once; None: all.
        params: key -> values, as on the command line, which precedes.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None):
        self.max_batch_size = max_batch_size
        self.params = params or {}

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the jobs; returns what the launcher returns for each batch of jobs."""
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        parser = OverridesParser.create(self.hydra_context.config_loader)
        params = [f"{key}={values}" for key, values in self.params.items()]
        given = parser.parse_overrides([*params, *arguments])
        batches = BasicSweeper.split_arguments(given, self.max_batch_size)
        self.validate_batch_is_legal(self._one_for_each_choice(given, batches))
        Path(self.config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        returned = []
        num_begun = 0
        for batch in batches:
            results = self.launcher.launch(batch, initial_job_idx=num_begun)
            for result in results:
                _ = result.return_value  # raises an error that is not the job's own
            num_begun += len(batch)
            returned.append(results)
        return returned

    def _one_for_each_choice(
        self, given: Sequence[Override], batches: Sequence[Sequence[Sequence[str]]]
    ) -> list[Sequence[str]]:
        """Return one job for each combination of YAMLs."""
        assert self.config is not None
        groups = self.config.hydra.runtime.choices
        chosen = tuple(
            f"{override.get_key_element()}="
            for override in given
            if "/" in override.key_or_group or override.key_or_group in groups
        )
        different = {}
        for job in (job for batch in batches for job in batch):
            combination = tuple(each for each in job if each.startswith(chosen))
            different.setdefault(combination, job)
        return list(different.values())


def params_of(config: DictConfig) -> list[str]:
    """Return the arguments that a YAML gives to the sweeper in `hydra.sweeper.params`."""
    if config.hydra.sweeper._target_ != OF_HYDRA:
        return []
    return [f"{key}={values}" for key, values in (config.hydra.sweeper.params or {}).items()]


@contextmanager
def in_place_of_hydras() -> Iterator[None]:
    """Let Hydra create this sweeper instead of its own in the block."""
    known = Plugins.instance().class_name_to_class
    before = known[OF_HYDRA]
    known[OF_HYDRA] = Grid
    try:
        yield
    finally:
        known[OF_HYDRA] = before
