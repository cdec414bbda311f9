"""From YAML files and `key=value` arguments to one config."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lmft import arguments, trust
from lmft.errors import UserError
from lmft.mistakes import config_mistakes_are_user_errors

HYDRA_VERSION = "1.3"  # whose defaults hold


def config_dir() -> Path:
    """The folder of the shipped YAML files: beside this file in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def compose(overrides: Sequence[str] = (), command: str = "train") -> dict[str, Any]:
    """The config that `python -m lmft.<command> <overrides>` runs with, plain and resolved. Raises: UserError."""
    overrides = [arguments.readable(override) for override in overrides]
    check(overrides, command)
    arguments.refuse_several_values(overrides)
    return plain(composed(overrides, command), overrides)


@config_mistakes_are_user_errors()
def composed(overrides: Sequence[str], command: str, extra_folder: str | None = None) -> DictConfig:
    """Hydra's config, with its own node `hydra`. Raises: UserError."""
    search = [f"hydra.searchpath=[{arguments.quoted(Path(extra_folder).absolute().as_uri())}]"] if extra_folder else []
    with hydra.initialize_config_dir(str(config_dir()), job_name=command, version_base=HYDRA_VERSION):
        return hydra.compose(command, [*overrides, *search], return_hydra_config=True)


@config_mistakes_are_user_errors()
def plain(config: DictConfig, command_line: Iterable[str] = ()) -> dict[str, Any]:
    """`config` as resolved dicts and lists, without the node `hydra`.

    Raises: UserError, also for classes that are not trusted; what is trusted, `command_line` alone says.
    """
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    resolved = {str(key): value for key, value in resolved.items()}
    trust.check(resolved, command_line)
    return resolved


@config_mistakes_are_user_errors()
def check(overrides: Sequence[str], command: str, extra_folder: str | None = None) -> DictConfig:
    """Finds mistyped keys, values of a wrong type, and what Hydra must not run. Raises: UserError.

    Returns: the config before any single value is overridden, with the groups' YAMLs that `overrides` chooses.
    """
    if extra_folder and not Path(extra_folder).is_dir():
        raise UserError("no such folder of YAML files", f"--config-dir {extra_folder}")
    given = [arguments.parse(override) for override in overrides]
    groups = _groups([config_dir(), Path(extra_folder)] if extra_folder else [config_dir()])
    shaping = [override for override in given if _shapes_config(override, groups)]
    defaults, *others = [composed(choice, command, extra_folder) for choice in _choices(shaping)]
    for each in (defaults, *others):
        trust.check_hydras(each)
    known = dict.fromkeys(groups) | dict(_values(defaults, ""))
    arguments.check([override for override in given if override not in shaping], known)
    return defaults


def first_value(override: Override) -> str:
    """`override` with the first of its values, where it has several."""
    return _each_value(override)[0]


def _each_value(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        return [override.input_line or ""]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _choices(shaping: Sequence[Override]) -> Iterator[list[str]]:
    """The first values of all overrides; then each other value of each, among the first ones of the others."""
    first = [first_value(override) for override in shaping]
    yield first
    for i, override in enumerate(shaping):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in _each_value(override)[1:])


def _groups(folders: Sequence[Path]) -> set[str]:
    return {group.name for folder in folders for group in folder.iterdir() if group.is_dir()}


def _shapes_config(override: Override, groups: set[str]) -> bool:
    """Whether `override` says which YAML files are read, rather than sets a value."""
    key = override.key_or_group
    return "/" in key or key in {*groups, "hydra.mode", "hydra.searchpath"} or override.package is not None


def _values(node: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    """(key with dots, value) of every value and every group of values; None where a value cannot be known yet."""
    for name in node:
        value = OmegaConf.select(node, str(name), throw_on_resolution_failure=False)
        key = f"{prefix}{name}"
        yield key, OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        if isinstance(value, DictConfig):
            yield from _values(value, f"{key}.")
