"""The options that a search gives values to: their values, scales and conditions."""

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig, OmegaConf

from lmft.config.grammar import parse
from lmft.errors import UserError

if TYPE_CHECKING:
    from optuna.trial import Trial

_SPAN_OF_LOG = 100  # an interval whose end is this many times its start is sampled on a log scale
_TAGS = {"log", "linear"}


@dataclass(frozen=True)
class Parameter:
    """An option that a search gives values to: of a list, or numbers of an interval."""

    option: str
    """As on the command line, perhaps with `+` before it."""
    text: str
    """Its values as they were given, for messages."""
    choices: tuple[str, ...] = ()
    """The values of a list, as typed; empty: the numbers of an interval."""
    numbers: tuple[float, ...] = ()
    """The numbers of a range, in order."""
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False
    is_log: bool = False
    condition: Mapping[str, Collection[Any]] = field(default_factory=dict)
    """Other option -> its values with which this option is part of a trial."""

    @property
    def name(self) -> str:
        """The option without `+`."""
        return self.option.lstrip("+")

    @property
    def values(self) -> Sequence[Any]:
        """All its values; none for an interval."""
        return self.choices or self.numbers

    def suggest(self, trial: "Trial") -> str:
        """Return the trial's value, as it is typed."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        if self.numbers:
            return repr(self._suggest_number(trial))
        if self.is_whole:
            return repr(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.is_log))
        return repr(trial.suggest_float(self.name, self.low, self.high, log=self.is_log))

    def first(self) -> str:
        """Return the first of its values, as it is typed."""
        if self.values:
            return str(self.values[0])
        return repr(int(self.low) if self.is_whole else self.low)

    def _suggest_number(self, trial: "Trial") -> float:
        first = self.numbers[0]
        last = self.numbers[-1]
        step = self.numbers[1] - first if len(self.numbers) > 1 else 1
        if all(isinstance(number, int) for number in self.numbers):
            return trial.suggest_int(self.name, int(first), int(last), step=int(step))
        suggested = trial.suggest_float(self.name, first, last, step=_rounded(step))
        return min(self.numbers, key=lambda number: abs(number - suggested))

    def holds(self, values: Mapping[str, str]) -> bool:
        """Return whether the condition is met. values: option -> value as typed, of the others."""
        return all(
            name in values and parse(f"x={values[name]}").value() in wanted
            for name, wanted in self.condition.items()
        )


@dataclass(frozen=True)
class Space:
    """All parameters of a search, each after those that its condition names."""

    parameters: Sequence[Parameter]
    fixed: Mapping[str, str]
    """Option -> value as typed, of the options that conditions name and that are not searched."""

    def suggest(self, trial: "Trial") -> dict[str, str]:
        """Return option -> value as typed, for each parameter whose condition is met."""
        values = dict(self.fixed)
        chosen = {}
        for parameter in self.parameters:
            if parameter.holds(values):
                values[parameter.name] = parameter.suggest(trial)
                chosen[parameter.option] = values[parameter.name]
        return chosen

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination of values, as Optuna records them; no interval may be among them."""
        axes = [range(len(parameter.values)) for parameter in self.parameters]
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for indices in itertools.product(*axes):
            recorded = self._recorded(indices)
            found.setdefault(tuple(recorded.items()), recorded)
        return list(found.values())

    def _recorded(self, indices: Sequence[int]) -> dict[str, Any]:
        """Return the values at these places of each parameter, without those whose condition fails."""
        values = dict(self.fixed)
        recorded: dict[str, Any] = {}
        for parameter, index in zip(self.parameters, indices, strict=True):
            if parameter.holds(values):
                recorded[parameter.name] = parameter.values[index]
                values[parameter.name] = str(parameter.values[index])
        return recorded

    def description(self) -> dict[str, str]:
        """Return option -> values and condition in words, by which two searches are compared."""
        return {
            each.name: f"{each.text}, if {_shown(each.condition)}" if each.condition else each.text
            for each in self.parameters
        }


def read_space(
    overrides: Sequence[Override], params: Mapping[str, Any], default: DictConfig | None = None
) -> Space:
    """Return the space that a command line and a YAML describe.

    Args:
        overrides: of the command line. An option with one value there is not searched.
        params: `sweep.params`: option -> values, or {values, if}.
        default: the config without the options that are searched; it tells which are whole numbers.

    Raises: UserError.
    """
    typed = {override.key_or_group: override for override in overrides}
    listed = [
        (_parsed(option, values), condition)
        for option, (values, condition) in _entries(params).items()
        if option.lstrip("+") not in typed
    ]
    listed += [(override, {}) for override in typed.values() if override.is_sweep_override()]
    parameters = [_parameter(override, condition, default) for override, condition in listed]
    names = {parameter.name for parameter in parameters}
    fixed = {}
    for parameter in parameters:
        for name in parameter.condition:
            if name not in names:
                fixed[name] = _fixed_value(name, parameter, typed)
    return Space(_ordered(parameters), fixed)


def _entries(params: Mapping[str, Any]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Return option -> (values, condition)."""
    entries = {}
    for option, entry in params.items():
        condition = {}
        if isinstance(entry, Mapping):
            if not {"values"} <= entry.keys() <= {"values", "if"}:
                fix = 'write {values: "interval(0,1)", if: {optimizer: sgd}}'
                raise UserError(f"{option} needs values", f"sweep.params: {dict(entry)}", fix)
            condition = entry.get("if") or {}
            entry = entry["values"]
        if not isinstance(condition, Mapping):
            fix = "name an option and its value: if: {optimizer: sgd}"
            raise UserError(f"the condition of {option} cannot be read", f"if: {condition}", fix)
        entries[str(option)] = (entry, condition)
    return entries


def _parsed(option: str, values: Any) -> Override:
    if isinstance(values, list):
        values = f"choice({','.join(map(str, values))})"
    override = parse(f"{option}={values}")
    if not override.is_sweep_override():
        fix = f"choice({values},…), range(1,9) or interval(0,1); one value alone: {option}={values}"
        raise UserError(f"{option} has one value", f"sweep.params: {option}: {values}", fix)
    return override


def _parameter(
    override: Override, condition: Mapping[str, Any], default: DictConfig | None
) -> Parameter:
    values = override.value()
    typed = override.input_line or ""
    text = typed.partition("=")[2]
    tags = getattr(values, "tags", set())
    if tags - _TAGS or len(tags) > 1 or (tags and not isinstance(values, IntervalSweep)):
        fix = "tag(log,interval(1e-5,1e-3)) samples on a log scale, tag(linear,…) evenly"
        raise UserError(f"{override.key_or_group}: this tag cannot be used", typed, fix)
    wanted = {
        str(name): value if isinstance(value, list) else [value] for name, value in condition.items()
    }
    option = override.get_key_element()
    if isinstance(values, IntervalSweep):
        return _interval(option, text, values, wanted, override, default)
    if isinstance(values, RangeSweep):
        numbers = [_number(text) for text in override.sweep_string_iterator()]
        _check_some(numbers, typed)
        return Parameter(option, text, numbers=tuple(sorted(numbers)), condition=wanted)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    _check_some(choices, typed)
    return Parameter(option, text, choices=choices, condition=wanted)


def _number(text: str) -> float:
    """Return the number that is typed so, an int if it is whole."""
    number = parse(f"x={text}").value()
    assert isinstance(number, int | float)
    return _rounded(number)


def _rounded(number: float) -> float:
    """Return a number without the rounding error of its sum: 0.1 + 0.2 is 0.3."""
    return float(f"{number:.12g}") if isinstance(number, float) else number


def _check_some(values: Sequence[Any], typed: str) -> None:
    if not values:
        raise UserError("there is no value to try", typed, "range(START,STOP) ends before STOP")


def _interval(
    option: str,
    text: str,
    values: IntervalSweep,
    condition: Mapping[str, Collection[Any]],
    override: Override,
    default: DictConfig | None,
) -> Parameter:
    typed = override.input_line
    low = float(values.start or 0.0)
    high = float(values.end or 0.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UserError("an interval begins below its end", typed, f"{option}=interval(1e-5,1e-3)")
    if "log" in values.tags and low <= 0:
        what = "a log scale begins above zero"
        raise UserError(what, typed, f"{option}=tag(log,interval({high / 1000:g},{high:g}))")
    is_log = "linear" not in values.tags and low > 0 and high >= _SPAN_OF_LOG * low
    return Parameter(
        option,
        text,
        low=low,
        high=high,
        is_whole=_is_whole(values, override, default),
        is_log=is_log or "log" in values.tags,
        condition=condition,
    )


def _is_whole(values: IntervalSweep, override: Override, default: DictConfig | None) -> bool:
    """Return whether an interval has whole numbers only.

    They are those of `int(interval(…))`, and of an option that takes no others. If the option has no
    default that tells, it is how the ends are written. Raises: UserError.
    """
    if isinstance(values.start, int) and isinstance(values.end, int):
        return True  # Hydra's int(…); without it an interval has floats
    present = None
    if default is not None:
        present = OmegaConf.select(default, override.key_or_group, throw_on_resolution_failure=False)
    if isinstance(present, bool | str | list | dict | DictConfig):
        fix = f"{override.get_key_element()}=choice(…) names the values to try"
        raise UserError(f"{override.key_or_group} takes no numbers", override.input_line, fix)
    text = override.input_line or ""
    has_whole_ends = values.start == int(values.start or 0) and values.end == int(values.end or 0)
    if isinstance(present, int):
        if not has_whole_ends:
            raise UserError(
                f"{override.key_or_group} takes whole numbers", text, "whole ends: interval(1,8)"
            )
        return True
    if isinstance(present, float):
        return False
    return has_whole_ends and not re.search(r"\d[.eE]|float\(", text.partition("=")[2])


def _fixed_value(name: str, parameter: Parameter, typed: Mapping[str, Override]) -> str:
    if name not in typed or typed[name].is_delete():
        what = f"{parameter.name} has a condition on {name}, which is not searched"
        fix = f"add {name} to sweep.params, or leave the condition out"
        raise UserError(what, f"if: {_shown(parameter.condition)}", fix)
    return (typed[name].input_line or "").partition("=")[2]


def _ordered(parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return each parameter after those that its condition names. Raises: UserError for a circle."""
    waiting = list(parameters)
    ordered: list[Parameter] = []
    while waiting:
        names = {parameter.name for parameter in waiting}
        ready = [parameter for parameter in waiting if not names & parameter.condition.keys()]
        if not ready:
            raise UserError("these conditions depend on each other", ", ".join(sorted(names)))
        ordered += ready
        waiting = [parameter for parameter in waiting if parameter not in ready]
    return ordered


def log_scales(space: Space) -> Iterator[str]:
    """Yield a sentence for each interval that is sampled on a log scale without having been asked to."""
    for each in space.parameters:
        if each.is_log and "tag(" not in each.text:
            decades = math.log10(each.high / each.low)
            yield (
                f"{each.name} is sampled on a log scale: {each.text} spans {decades:.2g} powers of ten; "
                f"tag(linear,{each.text}) samples it evenly"
            )


def _shown(condition: Mapping[str, Collection[Any]]) -> str:
    return " and ".join(
        f"{name} = {' or '.join(map(str, wanted))}" for name, wanted in condition.items()
    )
