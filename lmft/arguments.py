"""The command line's `key=value` arguments: written so that Hydra reads what was meant, and checked."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from lmft.errors import UserError, did_you_mean

FREE_TEXT = {"text", "prompt", "chat", "completion"}  # values taken as they were typed: [MASK] is no list there
# These take keys that the config does not have: model.config.n_layers=4.
OPEN = ("model.config.", "model.generation.", "scheduler.options.")
_UNTYPED = "trainer."  # lightning.Trainer checks its own arguments, many of which take several types
_STRUCTURED_VALUE = re.compile(r"""[\[{'"]|\$\{|\w+\(""")  # how a list, dict, quote, interpolation or function begins


def parse(argument: str) -> Override:
    """One `key=value` by Hydra's grammar. Raises: hydra.errors.OverrideParseException."""
    return OverridesParser.create().parse_overrides([argument])[0]


def readable(argument: str) -> str:
    """`argument` so that Hydra reads it as it was meant.

    Free text, and what the grammar cannot read as a value (`run=runs/sweep/seed=1`), is quoted; `~/` at the beginning
    of a value is the user's home; new keys of the open nodes get the `++` that Hydra asks for. Idempotent.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    if key.startswith(OPEN):
        key = f"++{key}"
    if (key in FREE_TEXT and not _is_quoted(value)) or _is_plain_text(f"{key}={value}", value):
        value = quoted(value)
    return f"{key}={value}"


def quoted(text: str) -> str:
    """A value of Hydra's grammar that is read as `text`, whatever is in it."""
    literal = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + r"\${", text)  # no interpolation
    return QuotedString(literal, Quote.single).with_quotes()


def assignment(key: str, text: str) -> str:
    """The argument that sets `key` to `text`, in quotes only where it would be read otherwise without."""
    typed = f"{key}={text}"
    override = parse(readable(typed))
    return typed if not override.is_sweep_override() and override.value() == text else f"{key}={quoted(text)}"


def check(given: Collection[Override], known: Mapping[str, Any]) -> None:
    """Finds mistyped keys and values of a wrong type.

    Args:
        given: overrides of values, not of groups.
        known: key with dots -> its default value, of every key of the config.

    Raises: UserError.
    """
    for override in given:
        key = override.key_or_group
        if key not in known and not (override.is_add() or override.is_force_add()):
            raise UserError(f"unknown option '{key}'{nearest(key, known)}", override.input_line, _how_to_find(key))
        if not key.startswith(_UNTYPED) and not override.is_delete():
            for value in _values(override):
                _check_type(override, value, known.get(key))


def refuse_several_values(overrides: Collection[str]) -> None:
    """For a single run. Raises: UserError where an override names several values."""
    for override in map(parse, overrides):
        if override.is_sweep_override():
            key, _, values = (override.input_line or "").partition("=")
            fix = f"--multirun tries them one after the other; {key}=[{values}] is a list"
            raise UserError(f"several values for '{key}'", override.input_line, fix)


def nearest(key: str, known: Collection[str]) -> str:
    """` (did you mean 'optimizer.lr'?)` for `lr` and for `optimizer.lrr`, or the empty string."""
    last = key.rpartition(".")[2]
    same_end = [name for name in known if name.rpartition(".")[2] == last and not name.startswith("hydra.")]
    return f" (did you mean '{same_end[0]}'?)" if same_end else did_you_mean(key, known)


def _is_quoted(value: str) -> bool:
    """Whether the user has quoted a text, or a list of texts, for Hydra already."""
    if not re.match(r"""\[?\s*['"]""", value):
        return False
    try:
        element = parse(f"text={value}").value()
    except OverrideParseException:
        return False
    return isinstance(element, str | list)


def _is_plain_text(argument: str, value: str) -> bool:
    if not value or _STRUCTURED_VALUE.match(value):
        return False
    try:
        parse(argument)
    except OverrideParseException:
        return _reads_when_quoted(argument)
    return False


def _reads_when_quoted(argument: str) -> bool:
    """Whether the value, not the key, is what the grammar cannot read."""
    try:
        parse(argument.partition("=")[0] + "=x")
    except OverrideParseException:
        return False
    return True


def _how_to_find(key: str) -> str:
    fix = "`--cfg job` shows every option"
    has_class = "." in key and key.partition(".")[0] in ("trainer", "optimizer", "callbacks", "logger", "objective")
    return f"{fix}; an argument of the class that it does not list needs a plus sign: +{key}=…" if has_class else fix


def _values(override: Override) -> Iterator[Any]:
    if not override.is_sweep_override():
        yield override.value()
    elif override.is_discrete_sweep():
        yield from (parse(f"x={text}").value() for text in override.sweep_string_iterator())


def _check_type(override: Override, value: Any, default: Any) -> None:
    if value is None or default is None or (isinstance(value, str) and "${" in value):
        return
    wanted = _mismatch(value, default)
    if wanted:
        raise UserError(f"'{override.key_or_group}' is {wanted}, not {value!r}", override.input_line)


def _mismatch(value: Any, default: Any) -> str | None:
    """What a value of the default's kind is called, if `value` is of another kind."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    if isinstance(default, float):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(default, dict):
        return None if isinstance(value, dict) else f"a group of options ({', '.join(default)})"
    return None
