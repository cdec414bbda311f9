"""Options of an objective that change in the course of a training: {0: 0.3, 0.9: 0.15}.

The keys are shares of the training's optimizer steps. Each value holds from its share until the next.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lmft.errors import UserError

EXAMPLE = "{0: 0.3, 0.9: 0.15}"
_SAME_IN_ALL = "validation_"  # validations are compared with each other


def is_schedule(value: Any) -> bool:
    """Return whether an option's value is a schedule: a mapping with numbers as keys."""
    return isinstance(value, Mapping) and bool(value) and all(map(_is_number, value))


def stages(options: Any, key: str) -> dict[float, Any]:
    """Return {share of the training: the options from there on}; one stage if nothing changes.

    Args:
        options: an objective's options, plain; schedules may be anywhere in them.
        key: where they stand in the config, for messages.

    Raises: UserError if a schedule does not begin at 0 or ends outside the training.
    """
    found = dict(_schedules(options, key))
    for name, schedule in found.items():
        _check(name, schedule)
    shares = sorted({0.0, *(share for schedule in found.values() for share in schedule)})
    return {share: _at(options, share) for share in shares}


def described(options: Any, key: str) -> list[str]:
    """Return a line on each schedule: its values, and the one that validation measures."""
    lines = []
    for name, schedule in _schedules(options, key):
        values = [f"{value} from {share:.4g} of the steps" for share, value in schedule.items()]
        last = list(schedule.values())[-1]
        lines.append(
            f"{name}: {', '.join(values)}; validations use {last}, unless a validation_ option is set"
        )
    return lines


def _schedules(options: Any, key: str) -> Iterator[tuple[str, dict[float, Any]]]:
    """Yield (key with dots, {share: value}) of each schedule, its shares in order."""
    if is_schedule(options):
        yield key, dict(sorted(_shares(options).items()))
        return
    inner: Mapping[Any, Any] = {}
    if isinstance(options, Mapping):
        inner = options
    elif isinstance(options, list):
        inner = dict(enumerate(options))
    for name, value in inner.items():
        yield from _schedules(value, f"{key}.{name}")


def _shares(schedule: Mapping[Any, Any]) -> dict[float, Any]:
    return {float(share): value for share, value in schedule.items()}


def _check(key: str, schedule: Mapping[float, Any]) -> None:
    what = f"{key} changes at {', '.join(f'{share:g}' for share in schedule)}"
    fix = f"shares of the training, from 0 to below 1: {key}={EXAMPLE}"
    if 0.0 not in schedule:
        raise UserError(f"{what}, and has no value for the beginning", fix=fix)
    if not all(0 <= share < 1 for share in schedule):
        raise UserError(f"{what}, which is outside the training", fix=fix)
    if key.rpartition(".")[2].startswith(_SAME_IN_ALL):
        what = f"{key} cannot change: validations are compared with each other"
        raise UserError(what, fix=f"one value: {key}={schedule[0.0]}")


def _at(options: Any, share: float) -> Any:
    """Return the options with each schedule replaced by its value at a share of the training."""
    if is_schedule(options):
        reached = [start for start in _shares(options) if start <= share]
        return _shares(options)[max(reached)]
    if isinstance(options, Mapping):
        return {name: _at(value, share) for name, value in options.items()}
    if isinstance(options, list):
        return [_at(value, share) for value in options]
    return options


def _is_number(key: Any) -> bool:
    try:
        float(key)
    except (TypeError, ValueError):
        return False
    return not isinstance(key, bool)
