"""Let Hydra compose a config, with its own node and unresolved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.sources import SHIPPED, Sources

HYDRA_VERSION = "1.3"  # the version whose defaults Hydra uses

OF_SWEEPS = ("launcher",)
"""Groups whose choice is one of the sweep, not of its jobs."""


def choices_of(hydra_node: Any) -> dict[str, str | None]:
    """Return, from Hydra's own node, group -> name of the YAML chosen from it, of a job's groups."""
    choices = hydra_node.runtime.choices
    return {
        str(group): choices[group]
        for group in choices
        if str(group).split("/")[0] not in ("hydra", *OF_SWEEPS)
    }


@config_errors_are_user_errors()
def composed(overrides: Sequence[str], command: str, sources: Sources = SHIPPED) -> DictConfig:
    """Return Hydra's config, with its own node `hydra`. Raises: UserError."""
    with initialized(command, sources):
        return hydra.compose(sources.name or command, list(overrides), return_hydra_config=True)


@contextmanager
def initialized(command: str, sources: Sources) -> Iterator[None]:
    """Let Hydra find the YAMLs of `sources` in the block; a command that runs under Hydra may ask."""
    folder = str(sources.main_folder)
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with (
            sources.searched(),
            hydra.initialize_config_dir(folder, job_name=command, version_base=HYDRA_VERSION),
        ):
            yield
    finally:
        GlobalHydra.instance().hydra = running


@contextmanager
def hydra_node_of(config: DictConfig) -> Iterator[None]:
    """Let `${hydra:…}` in the block read the node `hydra` of a composed config."""
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.set_config(config)
    try:
        yield
    finally:
        instance.cfg = before


@config_errors_are_user_errors()
def resolved(node: DictConfig) -> dict[str, Any]:
    """Return what `composed` gives as resolved dicts and lists, unchecked. Raises: UserError."""
    with hydra_node_of(node):
        values = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        container = OmegaConf.to_container(values, resolve=True, throw_on_missing=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
