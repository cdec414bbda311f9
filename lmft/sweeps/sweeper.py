"""The sweeper that Hydra creates for sweep=…"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from lmft.sweeps.checks import is_search
from lmft.sweeps.launching import LaunchingSweeper


class SearchSweeper(LaunchingSweeper):
    """Runs the trials of a search, by any of Hydra's launchers.

    Args:
        max_batch_size: null; `sweep.num_parallel` says how many trials are launched at once.
        params: `hydra.sweeper.params`, searched like `sweep.params`.
    """

    def __init__(self, max_batch_size: int | None = None, params: dict[str, Any] | None = None):
        self.params = params or {}

    def sweep(self, arguments: list[str]) -> None:
        """Search. arguments: `key=value` of the command line. Raises: UserError."""
        from lmft.sweeps.trials import run_trials

        assert self.launcher is not None and self.config is not None and self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        run_trials(self.launcher, self.config, self.params, parser.parse_overrides(arguments))


@contextmanager
def searching(config: DictConfig) -> Iterator[None]:
    """Let Hydra create this sweeper instead of its own in the block, if a config asks for a search.

    Hydra creates sweepers of the package `hydra_plugins` and its own only, found by their names.
    """
    if not is_search(config):
        yield
        return
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__qualname__}"
    known = Plugins.instance().class_name_to_class
    before = known[name]
    known[name] = SearchSweeper
    try:
        yield
    finally:
        known[name] = before
