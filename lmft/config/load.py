"""Compose one config from YAML files and `key=value` arguments."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from lmft.config import contradictions, hydra_options, trust
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.overrides import (
    check_overrides,
    check_type,
    parse,
    quote_for_hydra,
    quoted_if_needed,
    refuse_several_values,
)
from lmft.config.shipped import config_dir
from lmft.config.sources import SHIPPED, Sources, sources_in
from lmft.errors import UserError, did_you_mean
from lmft.system.files import read_yaml

HYDRA_VERSION = "1.3"  # the version whose defaults Hydra uses
OF_SWEEPS = ("launcher",)
"""Groups whose choice is one of the sweep, not of its jobs."""


@dataclass(frozen=True)
class Job:
    """One config, and the command line that asks for it."""

    config: dict[str, Any]
    """Plain and resolved."""
    choices: dict[str, str | None]
    """Group -> name of the YAML chosen from it."""
    overrides: list[str]
    """The `key=value` arguments that led to the config."""
    arguments: list[str]
    """The command line for this job alone."""
    is_verbose: bool = False
    """Whether the whole config is to be shown."""


def compose(overrides: Sequence[str] = (), command: str = "train") -> dict[str, Any]:
    """Return the config that `python -m lmft.<command> <overrides>` runs with, plain and resolved.

    >>> config = compose(["model=gpt2_tiny", "data.batch_size=16"])
    >>> config["data"]["batch_size"]
    16

    Args:
        overrides: `key=value` arguments; also --config-dir=FOLDER, --config-path and --config-name.
        command: train, evaluate, predict or prepare.

    Raises: UserError for what cannot be composed, and for options that nothing would read.
    """
    return compose_job(overrides, command).config


def compose_job(overrides: Sequence[str], command: str) -> Job:
    """Return the config of `compose`, and which YAMLs it was composed of. Raises: UserError."""
    if isinstance(overrides, str):
        raise UserError("one text is given for a list of arguments", overrides, f"[{overrides!r}]")
    sources, values = sources_in(overrides)
    given = with_implied_end([quote_for_hydra(value) for value in values])
    if sources.name is None:  # a YAML named by --config-name makes its own choices
        given = with_implied_choices(given)
    check(given, command, sources)
    refuse_several_values(given)
    node = composed(given, command, sources)
    with hydra_node_of(node):
        config = plain(node, given)
    if not isinstance(config.get("run"), str):  # otherwise most options are those of the run
        contradictions.check(config, given)
    return Job(config, choices_of(node.hydra), given, [*sources.arguments, *given])


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
def plain(config: DictConfig, command_line: Iterable[str] = ()) -> dict[str, Any]:
    """Return `config` as resolved dicts and lists, without the node `hydra`.

    Raises: UserError, also for classes that are not trusted; only `command_line` can add trusted ones.
    """
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    values = {str(key): value for key, value in container.items()}
    _check_types(values)
    if "trainer" in values:  # `~logger`, `logger=null`: there may be none
        values = {**{group: {} for group in _OPTIONAL_GROUPS}, **values}
    trust.check(values, command_line)
    return values


def _check_types(config: Mapping[str, Any]) -> None:
    """Raise UserError for a value outside the groups of another type than train.yaml gives it."""
    where = "a YAML or an interpolation; ${oc.decode:${oc.env:X}} reads a number"
    defaults = read_yaml(config_dir() / "train.yaml")
    for name, default in defaults.items():
        value = config.get(name, default)
        if isinstance(default, dict) and isinstance(value, Mapping):
            for option, of_option in default.items():
                check_type(f"{name}.{option}", value.get(option, of_option), of_option, where)
        elif name != "defaults" and not isinstance(default, dict):
            check_type(name, value, default, where)


@config_errors_are_user_errors()
def resolved(node: DictConfig) -> dict[str, Any]:
    """Return what `composed` gives as resolved dicts and lists, unchecked. Raises: UserError."""
    with hydra_node_of(node):
        values = OmegaConf.masked_copy(node, [str(key) for key in node if key != "hydra"])
        container = OmegaConf.to_container(values, resolve=True, throw_on_missing=False)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


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
_OPTIONAL_GROUPS = ("callbacks", "logger")


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
    known = {*shipped, *_NEEDED_GROUPS, *_OPTIONAL_GROUPS, "sweep", "hydra"}
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


@config_errors_are_user_errors()
def with_names(overrides: Sequence[str], command: str, sources: Sources) -> list[str]:
    """Return the overrides with the YAMLs' names for `model=glob(*)`.

    Raises: UserError for a glob that no name matches.
    """
    return [
        _with_names(override, overrides, command, sources) if "=glob(" in override else override
        for override in overrides
    ]


def _with_names(argument: str, overrides: Sequence[str], command: str, sources: Sources) -> str:
    override = parse(argument)
    pattern = override.value()
    if not isinstance(pattern, Glob):
        return argument
    searchpaths = [each for each in overrides if each.startswith("hydra.searchpath=")]
    with initialized(command, sources):
        loader = GlobalHydra.instance().config_loader()
        group = override.key_or_group
        options = loader.get_group_options(
            group, ObjectType.CONFIG, sources.name or command, searchpaths
        )
    # A name that begins with "_" is what other YAMLs start from.
    names = sorted(name for name in options if not name.startswith("_"))
    chosen = pattern.filter(names)
    if not chosen:
        what = f"{group} is not a group of YAMLs"
        if names:
            what = f"no name matches, of {', '.join(names)}"
        raise UserError(what, argument, f"{group}=glob(PATTERN) takes the names of conf/{group}/")
    return f"{override.get_key_element()}=choice({','.join(map(quoted_if_needed, chosen))})"


def first_value(override: Override) -> str:
    """Return `override` with the first of its values, if it has several."""
    return _single_values(override)[0]


def last_value(override: Override) -> str:
    """Return `override` with the last of its values, if it has several."""
    return _single_values(override)[-1]


def _single_values(override: Override) -> list[str]:
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]
    if not override.is_discrete_sweep():
        return [override.input_line or ""]
    values = list(override.sweep_string_iterator())
    if not values:
        raise UserError("there is no value to try", override.input_line)
    return [f"{override.get_key_element()}={value}" for value in values]


def _combinations(choices: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the first values of all choices; then, one choice at a time, its other values."""
    first = [first_value(override) for override in choices]
    yield first
    for i, override in enumerate(choices):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in _single_values(override)[1:])


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
