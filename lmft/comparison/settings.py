"""Find the options that differ between several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmft.comparison.records import Record, as_key, is_within

_DEFAULT = "(default)"


@dataclass(frozen=True)
class Column:
    """An option whose values differ between the runs."""

    key: str
    values: dict[str, Any]
    """Name of a run -> its value; without the runs whose settings are not known."""
    also: tuple[str, ...]
    """Further options that change with it, each to the same value wherever this one has the same."""


def differing(records: Sequence[Record]) -> list[Column]:
    """Return the options that differ between runs, those of the command lines first.

    An option that some runs do not have, because another version wrote them, differs only if the others
    have several values, or a command line has it. Options that only follow another one, such as all
    those of `model=NAME`, get no column of their own.
    """
    known = [record for record in records if record.settings]
    values = _values(known)
    typed = _typed(known, values)
    found = {**typed, **{key: of_key for key, of_key in values.items() if key not in typed}}
    followers: dict[str, list[str]] = {}
    for key, of_key in found.items():
        leader = None
        if key not in typed:
            leader = _leader(of_key, {column: found[column] for column in followers}, values)
        if leader is None:
            followers[key] = []
        else:
            followers[leader].append(key)
    names = [record.name for record in known]
    return [
        Column(key, dict(zip(names, found[key], strict=True)), tuple(also))
        for key, also in followers.items()
    ]


def _leader(
    values: Sequence[Any], columns: Mapping[str, Sequence[Any]], options: Mapping[str, Any]
) -> str | None:
    """Return the column that values follow; None if there is none.

    A choice of a YAML sets many options, some to the same value for several choices. An option changes
    with another one if both have the same runs in common.

    options: all options that differ; a column that is none of them is the choice of a YAML.
    """
    for key, others in columns.items():
        if _follows(values, others) and (key not in options or _follows(others, values)):
            return key
    return None


def _values(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Return key -> one value a run, for the keys of the configs that differ."""
    keys = dict.fromkeys(key for record in records for key in record.settings)
    found = {}
    for key in keys:
        known = {as_key(record.settings[key]) for record in records if key in record.settings}
        if len(known) > 1 or _may_be_typed(key, records):
            values = [record.settings.get(key) for record in records]
            if len(set(map(as_key, values))) > 1:
                found[key] = values
    return found


def _may_be_typed(key: str, records: Sequence[Record]) -> bool:
    """Return whether a command line names the option or a group that it lies in, or one is not known."""
    return any(record.typed is None or is_within(key, tuple(record.typed)) for record in records)


def _typed(records: Sequence[Record], options: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return key -> one value a run, for what differs between command lines, options and YAMLs chosen.

    None if a command line is not known.

    options: key -> one value a run, for all options that differ.
    """
    if any(record.typed is None for record in records):
        return {}
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for record in records for key in record.typed or {}):
        if key in options:
            found[key] = options[key]
        elif any(option.startswith(f"{key}.") for option in options):
            chosen = [(record.typed or {}).get(key, _DEFAULT) for record in records]
            if len(set(chosen)) > 1:
                found[key] = chosen
    return found


def _follows(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Return whether runs of equal `others` have equal `values`."""
    value_of: dict[str, str] = {}
    pairs = zip(map(as_key, values), map(as_key, others), strict=True)
    return all(value_of.setdefault(other, value) == value for value, other in pairs)


def shown(value: Any) -> str:
    """Return a value as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{shown(item)}' for key, item in value.items())}}}"
    return str(value)
