"""Build the dataclass of a config group from its values: unknown names and wrong types are refused."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from lmft.config.shipped import defaults_of
from lmft.errors import UserError, did_you_mean

T = TypeVar("T")
SHOW_ALL = "`--cfg job` shows every option"


def build(schema: type[T], values: Mapping[str, Any], key: str) -> T:
    """Build `schema` from `values`.

    Args:
        schema: a dataclass; its annotations are the types that are accepted.
        values: option -> value, plain. An option that is left out has the value in the group's
            `_base.yaml`.
        key: the group's key in the config (`data`), for messages.

    Raises: UserError.
    """
    hints = typing.get_type_hints(schema)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, schema))]
    for name, value in values.items():
        if name not in names:
            raise UserError(f"unknown option '{key}.{name}'{did_you_mean(name, names)}", fix=SHOW_ALL)
        if not _is_a(value, hints[name]):
            shown = "null" if value is None else repr(value)
            what = f"'{key}.{name}' must be {_name_of(hints[name])}, not {shown}"
            raise UserError(what, f"{key}.{name}")
    return schema(**{**defaults_of(key), **values})


def _is_a(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_a(value, member) for member in typing.get_args(hint))
    if dataclasses.is_dataclass(hint):
        return isinstance(value, Mapping | typing.cast(type, hint))
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is list and isinstance(value, list):
        return all(_is_a(item, typing.get_args(hint)[0]) for item in value)
    return isinstance(value, origin or hint)


def _name_of(hint: Any) -> str:
    """Return the name of a type for users."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_name_of(member) for member in typing.get_args(hint))
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
    }
    return names.get(typing.get_origin(hint) or hint, "a group of options")
