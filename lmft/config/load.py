"""Compose one config from YAML files and `key=value` arguments."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lmft.config import contradictions, trust
from lmft.config.command_line import OPTIONAL_GROUPS, check
from lmft.config.grammar import quote_for_hydra
from lmft.config.hydra_config import choices_of, composed, hydra_node_of
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.option_types import check_type
from lmft.config.several_values import refuse_several_values
from lmft.config.shipped import config_dir
from lmft.config.sources import sources_in
from lmft.errors import UserError
from lmft.system.files import read_yaml


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
        values = {**{group: {} for group in OPTIONAL_GROUPS}, **values}
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
