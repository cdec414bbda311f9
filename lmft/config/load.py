"""From YAML files and `key=value` arguments to one config."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lmft.config import contradictions, trust
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices
from lmft.config.overrides import check_overrides, parse, quote_for_hydra, quoted, refuse_several_values
from lmft.errors import UserError, did_you_mean

HYDRA_VERSION = "1.3"  # whose defaults hold


def config_dir() -> Path:
    """The folder of the shipped YAML files: inside the package in a wheel, beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


@dataclass(frozen=True)
class Job:
    """One config, and how it was asked for."""

    config: dict[str, Any]
    """Plain and resolved."""
    choices: dict[str, str | None]
    """Group -> name of the YAML chosen from it."""
    overrides: list[str]
    """The `key=value` arguments that led to the config."""
    arguments: list[str]
    """The command line that asks for this job alone."""


def compose(overrides: Sequence[str] = (), command: str = "train") -> dict[str, Any]:
    """Return the config that `python -m lmft.<command> <overrides>` runs with, plain and resolved.

    >>> config = compose(["model=gpt2_tiny", "data.batch_size=16"])
    >>> config["data"]["batch_size"]
    16

    Args:
        overrides: `key=value` arguments.
        command: train, evaluate, predict or prepare.

    Raises: UserError for what cannot be composed, and for options that nothing would read.
    """
    return compose_job(overrides, command).config


def compose_job(overrides: Sequence[str], command: str) -> Job:
    """Return the config of `compose`, and which YAMLs it was composed of. Raises: UserError."""
    given = with_implied_choices([quote_for_hydra(override) for override in overrides])
    check(given, command)
    refuse_several_values(given)
    node = composed(given, command)
    config = plain(node, given)
    if not isinstance(config.get("run"), str):  # otherwise most options are those of the run
        contradictions.check(config, given)
    return Job(config, choices_of(node.hydra), given, given)


def choices_of(hydra_node: Any) -> dict[str, str | None]:
    """Return, from Hydra's own node, group -> name of the YAML chosen from it."""
    choices = hydra_node.runtime.choices
    return {str(group): choices[group] for group in choices if str(group).split("/")[0] != "hydra"}


@config_errors_are_user_errors()
def composed(overrides: Sequence[str], command: str, extra_folder: str | None = None) -> DictConfig:
    """Hydra's config, with its own node `hydra`. Raises: UserError."""
    search = [f"hydra.searchpath=[{quoted(Path(extra_folder).absolute().as_uri())}]"] if extra_folder else []
    with hydra.initialize_config_dir(str(config_dir()), job_name=command, version_base=HYDRA_VERSION):
        return hydra.compose(command, [*overrides, *search], return_hydra_config=True)


@config_errors_are_user_errors()
def plain(config: DictConfig, command_line: Iterable[str] = ()) -> dict[str, Any]:
    """`config` as resolved dicts and lists, without the node `hydra`.

    Raises: UserError, also for classes that are not trusted; what is trusted, `command_line` alone says.
    """
    config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    resolved = {str(key): value for key, value in resolved.items()}
    if "trainer" in resolved:  # `~logger`, `logger=null`: there may be none
        resolved = {**{group: {} for group in _OPTIONAL_GROUPS}, **resolved}
    trust.check(resolved, command_line)
    return resolved


@config_errors_are_user_errors()
def check(overrides: Sequence[str], command: str, extra_folder: str | None = None) -> DictConfig:
    """Finds mistyped keys, values of a wrong type, and what Hydra must not run. Raises: UserError.

    Returns: the config before any single value is overridden, with the groups' YAMLs that `overrides`
    chooses.
    """
    if extra_folder and not Path(extra_folder).is_dir():
        raise UserError("no such folder of YAML files", f"--config-dir {extra_folder}")
    given = [parse(override) for override in overrides]
    groups = _groups([config_dir(), Path(extra_folder)] if extra_folder else [config_dir()])
    shaping = [override for override in given if _shapes_config(override, groups)]
    for override in shaping:
        _check_group(override, extra_folder)
    defaults, *others = [composed(choice, command, extra_folder) for choice in _choices(shaping)]
    for each in (defaults, *others):
        trust.check_hydras(each)
        _check_top_level(each, command)
    known = dict.fromkeys(groups) | dict(_values(defaults, ""))
    check_overrides([override for override in given if override not in shaping], known)
    return defaults


_NEEDED_GROUPS = ("model", "data", "objective", "optimizer", "scheduler", "trainer")
_OPTIONAL_GROUPS = ("callbacks", "logger")


def _check_group(override: Override, extra_folder: str | None) -> None:
    """Raises UserError where a group is left out that is needed, or a path is given for the name of a YAML."""
    key, value = override.key_or_group, None if override.is_delete() else override.value()
    if key in _NEEDED_GROUPS and value is None:
        raise UserError(f"'{key}' cannot be left out", override.input_line, f"choose one: {key}=NAME")
    path = Path(str(value)).expanduser()
    folders = [config_dir(), *([Path(extra_folder)] if extra_folder else [])]
    is_choice = any((folder / key / f"{value}.yaml").is_file() for folder in folders)
    is_path = path.is_absolute() or bool(path.suffix) or path.exists()
    if key in ("model", "data") and is_path and not is_choice:
        option = "model.name_or_path" if key == "model" else "data.path" if path.is_dir() else "data.train"
        raise UserError(
            f"{key}= names a YAML of conf/{key}/, not a path", override.input_line, f"{option}={value}"
        )


def _check_top_level(config: DictConfig, command: str) -> None:
    """Raises UserError for a value outside of all groups that neither we nor an interpolation of the config
    reads.
    """
    shipped = yaml.safe_load((config_dir() / "train.yaml").read_text("utf-8"))
    own = config_dir() / f"{command}.yaml"
    shipped |= yaml.safe_load(own.read_text("utf-8")) if own.is_file() else {}
    known = {*shipped, *_NEEDED_GROUPS, *_OPTIONAL_GROUPS, "hydra"}
    for name in (str(key) for key in config):
        if name not in known and f"${{{name}" not in OmegaConf.to_yaml(config):
            raise UserError(
                f"nothing reads '{name}'{did_you_mean(name, known)}", "a YAML of the config", _TAKE_OUT
            )


_TAKE_OUT = "take it out, or refer to it: ${NAME}"


def known_options(command: str) -> list[str]:
    """Every option of a command, with dots."""
    return [key for key, _ in _values(composed([], command), "")]


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
    """(key with dots, value) of every value and every group of values; None where a value cannot be known
    yet.
    """
    for name in node:
        value = OmegaConf.select(node, str(name), throw_on_resolution_failure=False)
        key = f"{prefix}{name}"
        yield key, OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        if isinstance(value, DictConfig):
            yield from _values(value, f"{key}.")
