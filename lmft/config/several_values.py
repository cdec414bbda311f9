"""Overrides with several values: `key=1,2`, `key=interval(0,1)`, `group=glob(*)`."""

from collections.abc import Collection, Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, ValueType

from lmft.config.grammar import parse, quoted_if_needed
from lmft.config.hydra_config import initialized
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.sources import Sources
from lmft.errors import UserError


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
    return single_values(override)[0]


def last_value(override: Override) -> str:
    """Return `override` with the last of its values, if it has several."""
    return single_values(override)[-1]


def single_values(override: Override) -> list[str]:
    """Return `override` with each of its values, or the ends of its interval. Raises: UserError."""
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


def refuse_several_values(overrides: Collection[str]) -> None:
    """Raise UserError if an override has several values, which a single run cannot use."""
    for override in map(parse, overrides):
        if override.is_sweep_override():
            key, _, values = (override.input_line or "").partition("=")
            fix = "--multirun tries them one after the other"
            if override.is_interval_sweep():
                fix = "--multirun sweep=optuna searches in the interval"
            elif override.value_type == ValueType.SIMPLE_CHOICE_SWEEP:
                fix += f"; {key}=[{values}] is a list"
            raise UserError(f"several values for '{key}'", override.input_line, fix)
