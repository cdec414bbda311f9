"""Compose one config from YAML files and `key=value` arguments."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from lmft.config import contradictions, trust
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.overrides import check_overrides, parse, quote_for_hydra, quoted, refuse_several_values
from lmft.config.shipped import config_dir
from lmft.errors import UserError, did_you_mean

HYDRA_VERSION = "1.3"  # the version whose defaults Hydra uses


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
    if isinstance(overrides, str):
        raise UserError("one text is given for a list of arguments", overrides, f"[{overrides!r}]")
    quoted_overrides = [quote_for_hydra(override) for override in overrides]
    given = with_implied_choices(with_implied_end(quoted_overrides))
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
    """Return Hydra's config, with its own node `hydra`. Raises: UserError."""
    overrides = list(overrides)
    if extra_folder:
        overrides.append(f"hydra.searchpath=[{quoted(Path(extra_folder).absolute().as_uri())}]")
    with hydra.initialize_config_dir(str(config_dir()), job_name=command, version_base=HYDRA_VERSION):
        return hydra.compose(command, overrides, return_hydra_config=True)


@config_errors_are_user_errors()
def plain(config: DictConfig, command_line: Iterable[str] = ()) -> dict[str, Any]:
    """Return `config` as resolved dicts and lists, without the node `hydra`.

    Raises: UserError, also for classes that are not trusted; only `command_line` can add trusted ones.
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
    """Check for mistyped keys, values of a wrong type, and classes that Hydra must not call.

    Returns: the composed config with the YAMLs that `overrides` chooses, before any value is overridden.

    Raises: UserError.
    """
    if extra_folder and not Path(extra_folder).is_dir():
        raise UserError("no such folder of YAML files", f"--config-dir {extra_folder}")
    given = [parse(override) for override in overrides]
    folders = _yaml_folders(extra_folder)
    groups = {group.name for folder in folders for group in folder.iterdir() if group.is_dir()}
    choices = [override for override in given if _is_choice(override, groups)]
    for override in choices:
        _check_group(override, folders)
    defaults, *others = [
        composed(combination, command, extra_folder) for combination in _combinations(choices)
    ]
    for config in (defaults, *others):
        trust.check_hydras(config)
        _check_top_level(config, command)
    known = dict.fromkeys(groups) | dict(_values(defaults, ""))
    check_overrides([override for override in given if override not in choices], known)
    return defaults


def _yaml_folders(extra_folder: str | None) -> list[Path]:
    if not extra_folder:
        return [config_dir()]
    return [config_dir(), Path(extra_folder)]


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
    shipped = yaml.safe_load((config_dir() / "train.yaml").read_text("utf-8"))
    own = config_dir() / f"{command}.yaml"
    if own.is_file():
        shipped |= yaml.safe_load(own.read_text("utf-8"))
    known = {*shipped, *_NEEDED_GROUPS, *_OPTIONAL_GROUPS, "sweep", "hydra"}
    for name in map(str, config):
        if name not in known and f"${{{name}" not in OmegaConf.to_yaml(config):
            what = f"nothing reads '{name}'{did_you_mean(name, known)}"
            raise UserError(what, "a YAML of the config", "remove it, or refer to it: ${NAME}")


def known_options(command: str) -> list[str]:
    """Return every option of a command, with dots."""
    return [key for key, _ in _values(composed([], command), "")]


def first_value(override: Override) -> str:
    """Return `override` with the first of its values, if it has several."""
    return _single_values(override)[0]


def _single_values(override: Override) -> list[str]:
    values = override.value()
    if isinstance(values, IntervalSweep):
        return [f"{override.get_key_element()}={values.start}"]
    if not override.is_discrete_sweep():
        return [override.input_line or ""]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _combinations(choices: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the first values of all choices; then, one choice at a time, its other values."""
    first = [first_value(override) for override in choices]
    yield first
    for i, override in enumerate(choices):
        yield from ([*first[:i], value, *first[i + 1 :]] for value in _single_values(override)[1:])


def _is_choice(override: Override, groups: set[str]) -> bool:
    """Return whether `override` chooses which YAML files are read; otherwise it sets a value."""
    key = override.key_or_group
    return (
        "/" in key or key in {*groups, "hydra.mode", "hydra.searchpath"} or override.package is not None
    )


def _values(node: DictConfig, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield (key with dots, value) for every value and group; None for a value that is unresolvable."""
    for name in node:
        value = OmegaConf.select(node, str(name), throw_on_resolution_failure=False)
        key = f"{prefix}{name}"
        yield key, OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
        if isinstance(value, DictConfig):
            yield from _values(value, f"{key}.")
