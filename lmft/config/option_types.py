"""Check that a value has the type of its option's default."""

from typing import Any

from lmft.config.stages import EXAMPLE, is_schedule
from lmft.errors import UserError

# Words that options of true or false take, too.
_WORDS = {"model.compile": "auto"}

# Groups with the arguments of a class, which may take more than the YAML lists.
OF_CLASSES = ("trainer", "optimizer", "callbacks", "logger", "objective", "hydra")
# Groups whose options a dataclass types, which allows null where it has a meaning.
_OF_SCHEMAS = ("data", "model", "scheduler")
_GROUPS_OF_NULL = ("checkpoint",)  # null: no checkpoints


def check_type(key: str, value: Any, default: Any, where: str | None) -> None:
    """Check that a value has the type of its option's default. Raises: UserError."""
    may_be_null = key.partition(".")[0] in (*OF_CLASSES, *_OF_SCHEMAS) or key in _GROUPS_OF_NULL
    if default is None or (value is None and may_be_null) or (isinstance(value, str) and "${" in value):
        return
    if key.startswith("objective.") and is_schedule(value):
        _check_schedule(key, value, default, where)
        return
    if key in _WORDS and value == _WORDS[key]:
        return
    is_right, type_name = _compare_types(value, default)
    if key in _WORDS:
        type_name += f" or {_WORDS[key]}"
    if not is_right:
        fix = None
        if isinstance(value, dict) and key.startswith("objective."):
            fix = f"one value, or a schedule by share of the training: {key}={EXAMPLE}"
        if key == "run":
            fix = f"run.name={value} names a run; evaluate, predict and inspect take run=FOLDER"
        shown = "null" if value is None else repr(value)
        raise UserError(f"'{key}' must be {type_name}, not {shown}", where, fix)


def _check_schedule(key: str, schedule: Any, default: Any, where: str | None) -> None:
    """Check the values of a schedule; Hydra would merge it with one of the YAML."""
    if isinstance(default, list):
        what = f"a schedule of {key}, a list, can only be in a YAML"
        raise UserError(what, where, "--config-dir FOLDER with objective/MINE.yaml")
    if not is_schedule(default):
        for value in schedule.values():
            check_type(key, value, default, where)
    elif kept := [str(share) for share in default if share not in schedule]:
        what = f"the YAML's own schedule would keep its values from {', '.join(kept)} on"
        raise UserError(what, where, f"give these shares values, too: {default}")


def _compare_types(value: Any, default: Any) -> tuple[bool, str]:
    """Return whether `value` has the type of `default`, and that type's name for messages."""
    is_bool = isinstance(value, bool)
    if isinstance(default, bool):
        return is_bool, "true or false"
    if isinstance(default, int):
        return isinstance(value, int) and not is_bool, "a whole number"
    if isinstance(default, float):
        return isinstance(value, int | float) and not is_bool, "a number"
    if isinstance(default, list) and default:
        return isinstance(value, list), f"a list such as {default}"
    if isinstance(default, str):
        return value is not None, "a text"
    if isinstance(default, dict):
        options = ", ".join(default) or "{NAME: VALUE, …}"
        return isinstance(value, dict), f"a group of options ({options})"
    return True, "anything"
