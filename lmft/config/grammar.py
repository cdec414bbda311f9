"""Read and write `key=value` in the grammar of Hydra's overrides."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

# Options whose values are taken literally: in them [MASK] is not a list.
FREE_TEXT = {"text", "prompt", "chat", "completion"}
# Options whose value is characters as they are typed, such as a quote or a space; or null.
CHARACTERS = {
    *("data.document_separator", "data.join.columns", "data.join.lists"),
    *("data.csv.delimiter", "data.csv.quote", "data.csv.escape"),
    *("data.instruction_template", "data.response_template"),
}
# Groups that take keys that the config does not list: model.config.n_layers=4.
OPEN = (
    "model.config.",
    "model.generation.",
    "model.shape.",
    "optimizer.groups.",
    "scheduler.options.",
    "data.sources.",
    "data.chat_template_kwargs.",
)
# Hydra does not take null for a group.
_NONE_CHOSEN = {
    "logger=null": "logger=none",
    "callbacks=null": "callbacks=none",
    "sweep=null": "sweep=none",
    "experiment=null": "~experiment",
    "debug=null": "~debug",
}
# The beginning of a list, dict, quote, interpolation or function.
_STRUCTURED_VALUE = re.compile(r"""[\[{'"]|\$\{|\w+\(""")


def parse(argument: str) -> Override:
    """Parse one `key=value` by Hydra's grammar. Raises: hydra.errors.OverrideParseException."""
    return _parser().parse_overrides([argument])[0]


@cache
def _parser() -> OverridesParser:
    """Return Hydra's parser; making one takes a millisecond."""
    return OverridesParser.create()


def quote_for_hydra(argument: str) -> str:
    """Return `argument` in a form that Hydra's grammar reads as it was meant.

    Free text, and values that the grammar cannot parse (`run=runs/sweep/seed=1`), are quoted; `~/` at
    the beginning of a value becomes the user's home; keys of `OPEN` groups get the `++` that Hydra
    requires. Idempotent.
    """
    argument = _NONE_CHOSEN.get(argument, argument)
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    if f"{key.lstrip('+')}.".startswith(OPEN) and value != "null":
        key = f"++{key.lstrip('+')}"
    is_text = key in FREE_TEXT or (key in CHARACTERS and value != "null")
    is_unquoted_text = is_text and not _is_quoted(value)
    if is_unquoted_text or _needs_quotes(f"{key}={value}", value):
        value = quoted(value)
    elif _is_nested_interpolation(value):  # which the grammar takes in quotes alone
        value = QuotedString(value, Quote.single).with_quotes()
    return f"{key}={value}"


def quoted(text: str) -> str:
    """Return `text` as a quoted value of Hydra's grammar."""
    literal = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)  # escape interpolations
    return QuotedString(literal, Quote.single).with_quotes()


def quoted_if_needed(text: str) -> str:
    """Return `text` as a value of Hydra's grammar, with quotes unless it is a plain word."""
    is_word = re.fullmatch(r"[A-Za-z][\w-]*", text) and parse(f"text={text}").value() == text
    return text if is_word else quoted(text)


def written(value: Any) -> str:
    """Return plain data (dicts, lists, scalars) as a value of Hydra's grammar."""
    if isinstance(value, str):
        return quoted_if_needed(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def assignment(key: str, text: str) -> str:
    """Return the argument that sets `key` to `text`, with quotes only if they are needed."""
    unquoted = f"{key}={text}"
    override = parse(quote_for_hydra(unquoted))
    if not override.is_sweep_override() and override.value() == text:
        return unquoted
    return f"{key}={quoted(text)}"


def _is_quoted(value: str) -> bool:
    """Return whether a value is a text, or a list of texts, that the user has quoted for Hydra."""
    if not re.match(r"""\[?\s*['"]""", value):
        return False
    try:
        element = parse(f"text={value}").value()
    except OverrideParseException:
        return False
    return isinstance(element, str | list)


def _needs_quotes(argument: str, value: str) -> bool:
    if not value or _STRUCTURED_VALUE.match(value):
        return False
    try:
        parse(argument)
    except OverrideParseException:
        return _has_valid_key(argument)
    return False


def _is_nested_interpolation(value: str) -> bool:
    """Return whether a value is one interpolation, with others inside: `${oc.decode:${oc.env:X}}`."""
    if not value.startswith("${") or "${" not in value[2:]:
        return False
    depth = 0
    for place, character in enumerate(value, 1):
        depth += (character == "{") - (character == "}")
        if depth == 0 and character == "}":
            return place == len(value)
    return False


def _has_valid_key(argument: str) -> bool:
    """Return whether the grammar can parse the key of an argument."""
    try:
        parse(argument.partition("=")[0] + "=x")
    except OverrideParseException:
        return False
    return True
