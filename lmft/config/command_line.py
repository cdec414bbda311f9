"""Check the command line against the YAMLs: mistyped keys, wrong types, unknown choices."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from lmft.config import hydra_options, trust
from lmft.config.grammar import parse
from lmft.config.hydra_config import composed
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.overrides import check_overrides
from lmft.config.several_values import first_value, single_values
from lmft.config.shipped import config_dir
from lmft.config.sources import SHIPPED, Sources
from lmft.errors import UserError, did_you_mean
from lmft.system.files import read_yaml


@config_errors_are_user_errors()
def check(overrides: Sequence[str], command: str, sources: Sources = SHIPPED) -> DictConfig:
    """Check for mistyped keys, values of a wrong type, and classes that Hydra must not call.

    Returns: the composed config with the YAMLs that `overrides` chooses, before any value is overridden.

    Raises: UserError.
    """
    sources.check()
    given = [parse(override) for override in overrides]
    known_groups = groups(sources)
    choices = [override for override in given if is_choice(override, known_groups)]
    for override in choices:
        _check_group(override, sources.folders)
    for override in given:
        hydra_options.check_override(override)
    defaults, *others = [
        composed(combination, command, sources) for combination in _combinations(choices)
    ]
    for config in (defaults, *others):
        trust.check_hydras(config)
        hydra_options.check_composed(config)
        _check_top_level(config, command)
    known = dict.fromkeys(known_groups) | dict(_values(defaults, ""))
    names_run = any(override.key_or_group == "run" for override in given)
    if names_run and command in _TAKES_RUN_OR_GROUP:
        known["run"] = None  # of any type
    check_overrides([override for override in given if override not in choices], known)
    return defaults


_TAKES_RUN_OR_GROUP = ("inspect",)  # commands with the options of a training, and run=FOLDER

_NEEDED_GROUPS = ("model", "data", "objective", "optimizer", "scheduler", "trainer")

OPTIONAL_GROUPS = ("callbacks", "logger")


def _check_group(override: Override, folders: Sequence[Path]) -> None:
    """Raise UserError if a needed group is left out, or a path is given instead of a YAML's name."""
    key = override.key_or_group
    value = None if override.is_delete() else override.value()
    if isinstance(value, IntervalSweep):
        what = f"{key}= names a YAML, and an interval has numbers"
        raise UserError(what, override.input_line, f"{key}=choice(NAME,NAME)")
    if key in _NEEDED_GROUPS and value is None:
        raise UserError(f"'{key}' cannot be left out", override.input_line, f"choose one: {key}=NAME")
    if str(value).startswith("_"):
        what = f"{key}={value}: other YAMLs start from it; it cannot be chosen itself"
        raise UserError(what, override.input_line, "`--help` lists the choices")
    path = Path(str(value)).expanduser()
    has_yaml = any((folder / key / f"{value}.yaml").is_file() for folder in folders)
    is_path = path.is_absolute() or bool(path.suffix) or path.exists()
    if key in ("model", "data") and is_path and not has_yaml:
        option = "model.name_or_path"
        if key == "data":
            option = "data.path" if path.is_dir() else "data.train"
        what = f"{key}= names a YAML of conf/{key}/, not a path"
        raise UserError(what, override.input_line, f"{option}={value}")


def _check_top_level(config: DictConfig, command: str) -> None:
    """Raise UserError for a value outside the groups that neither lmft nor an interpolation reads."""
    shipped = read_yaml(config_dir() / "train.yaml")
    own = config_dir() / f"{command}.yaml"
    if own.is_file():
        shipped |= read_yaml(own)
    known = {*shipped, *_NEEDED_GROUPS, *OPTIONAL_GROUPS, "sweep", "hydra"}
    for name in map(str, config):
        if name not in known and f"${{{name}" not in OmegaConf.to_yaml(config):
            what = f"nothing reads '{name}'{did_you_mean(name, known)}"
            raise UserError(what, "a YAML of the config", "remove it, or refer to it: ${NAME}")
    for group, options in shipped.items():
        node = OmegaConf.select(config, group, throw_on_resolution_failure=False)
        if isinstance(options, dict) and isinstance(node, DictConfig):
            for name in set(map(str, node)) - options.keys():
                what = f"nothing reads '{group}.{name}'{did_you_mean(name, options, f'{group}.')}"
                raise UserError(what, "a YAML of the config", "remove it")


def known_options(command: str) -> list[str]:
    """Return every option of a command, with dots."""
    return options_of(composed([], command))


def options_of(config: DictConfig) -> list[str]:
    """Return every option of a composed config, with dots."""
    return [key for key, _ in _values(config, "")]


def _combinations(choices: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the first values of all choices; then, one choice at a time, its other values."""
    first = [first_value(override) for override in choices]
    yield first
    for i, override in enumerate(choices):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in single_values(override)[1:])


def groups(sources: Sources) -> set[str]:
    """Return the names of the groups of YAMLs."""
    return {group.name for folder in sources.folders for group in folder.iterdir() if group.is_dir()}


def is_choice(override: Override, known_groups: set[str]) -> bool:
    """Return whether `override` chooses which YAML files are read; otherwise it sets values."""
    key = override.key_or_group
    if not override.is_delete() and isinstance(override.value(), Mapping):
        return False
    names = {*known_groups, "hydra.mode", "hydra.searchpath"}
    return "/" in key or key in names or override.package is not None


def _values(node: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield (key with dots, value) for every value and group; None for a value that is unresolvable."""
    for name in node:
        value = OmegaConf.select(node, str(name), throw_on_resolution_failure=False)
        key = f"{prefix}{name}"
        yield key, OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        if isinstance(value, DictConfig):
            yield from _values(value, f"{key}.")
