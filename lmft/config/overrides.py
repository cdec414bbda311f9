"""The command line's `key=value` arguments: quoted for Hydra's grammar, and checked."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import OverrideParseException

from lmft.config.shipped import choices_with
from lmft.config.stages import EXAMPLE, is_schedule
from lmft.errors import UserError, did_you_mean

# Words that options of true or false take, too.
_WORDS = {"model.compile": "auto"}

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
# Groups with the arguments of a class, which may take more than the YAML lists.
_OF_CLASSES = ("trainer", "optimizer", "callbacks", "logger", "objective", "hydra")
# Groups whose options a dataclass types, which allows null where it has a meaning.
_OF_SCHEMAS = ("data", "model", "scheduler")
_GROUPS_OF_NULL = ("checkpoint",)  # null: no checkpoints
# Names of options in other tools (the last part) -> lmft's names.
_OTHER_NAMES = {
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "fp16": "trainer.precision=16-mixed",
    "bf16": "trainer.precision=bf16-mixed",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "learning_rate": "optimizer.lr",
    "per_device_train_batch_size": "data.batch_size",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "max_grad_norm": "trainer.gradient_clip_val",
    "max_length": "data.block_size",
    "max_seq_length": "data.block_size",
    "warmup_steps": "scheduler.warmup",
    "warmup_ratio": "scheduler.warmup",
    "lr_scheduler_type": "scheduler",
    "train_file": "data.train",
    "validation_file": "data.validation",
    "dataset_name": "data.path",
    "model_name_or_path": "model.name_or_path",
    "tokenizer_name": "model.tokenizer.name_or_path",
    "output_dir": "run.dir",
    "resume_from_checkpoint": "resume",
}
_UNTYPED = "trainer."  # lightning.Trainer checks its own arguments, many of which take several types
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


def check_overrides(given: Collection[Override], known: Mapping[str, Any]) -> None:
    """Check for mistyped keys and values of a wrong type.

    Args:
        given: overrides of values, not of groups.
        known: key with dots -> default value, for every key of the config.

    Raises: UserError.
    """
    for override in given:
        key = override.key_or_group
        _check_is_inside_a_group(override, known)
        has_plus = override.is_add() or override.is_force_add()
        if key not in known and not (has_plus and may_be_new(key)):
            raise unknown(key, known, override.input_line)
        if override.is_add() and key in known:
            what = f"'{key}' is already in the config, and a plus sign adds new options"
            raise UserError(what, override.input_line, (override.input_line or "").lstrip("+"))
        if override.is_delete() and not may_be_new(key):
            fix = f"give it another value: {key}=…"
            raise UserError(f"'{key}' is needed, and cannot be removed", override.input_line, fix)
        if not key.startswith(_UNTYPED) and key != "hydra.verbose" and not override.is_delete():
            for value in _values(override):
                check_type(key, value, known.get(key), override.input_line)
                _check_keys(override, key, value, known)


def _check_is_inside_a_group(override: Override, known: Mapping[str, Any]) -> None:
    """Raise UserError for an option inside another that has a single value, or none."""
    parts = override.key_or_group.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if outer in known and not isinstance(known[outer], dict):
            inside = "{" + ": {".join(parts[length:]) + ": …" + "}" * (len(parts) - length)
            what = f"'{outer}' is not a group of options"
            raise UserError(what, override.input_line, f"{outer}={inside} replaces its value")


def _check_keys(override: Override, key: str, value: Any, known: Mapping[str, Any]) -> None:
    """Raise UserError for a key of a dict that the option, a group of options, does not have."""
    is_group = isinstance(known.get(key), dict) and known[key]
    if not isinstance(value, Mapping) or not is_group or may_be_new(key):
        return
    for name, item in value.items():
        inner = f"{key}.{name}"
        if inner not in known:
            raise unknown(inner, known, override.input_line)
        _check_keys(override, inner, item, known)


def unknown(key: str, known: Collection[str], where: str | None) -> UserError:
    """Return the error for an unknown option."""
    our_name = _OTHER_NAMES.get(key.rpartition(".")[2])
    if our_name:
        return UserError(f"unknown option '{key}'", where, f"in lmft it is called {our_name}")
    if choices := choices_with(key):
        more = ", …" if len(choices) > 3 else ""
        fix = f"it is an option with {' or '.join(choices[:3])}{more}"
        return UserError(f"unknown option '{key}'", where, fix)
    fix = "`--cfg job` shows every option"
    if "." in key and key.partition(".")[0] in _OF_CLASSES:
        fix += f"; an argument of the class that it does not list needs a plus sign: +{key}=…"
    return UserError(f"unknown option '{key}'{nearest(key, known)}", where, fix)


def full_name(name: str, known: Collection[str]) -> str:
    """Return the option meant by `lr`, `learning_rate` or `batch-size`; the name itself if none is
    known.
    """
    name = name.replace("-", "_")
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    return next(iter(_ending_alike(name, known)), name)


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


def check_launcher(overrides: Collection[str], is_sweep: bool) -> None:
    """Raise UserError for a launcher that nothing would use: of a single run, or one of several."""
    for override in map(parse, overrides):
        key = override.key_or_group
        is_choice = key in ("launcher", "hydra/launcher")
        if not (is_choice or key.startswith("hydra.launcher.")):
            continue
        if override.is_sweep_override():
            what = "one launcher runs all jobs of a sweep"
            raise UserError(what, override.input_line, f"{key}=NAME, with one value")
        launches_nothing = override.is_delete() or override.value() in ("none", "basic", None)
        if not is_sweep and not (is_choice and launches_nothing):
            what = "a launcher runs the jobs of a sweep, and this is a single run"
            raise UserError(what, override.input_line, "add -m for a sweep, or leave it out")


def nearest(key: str, known: Collection[str]) -> str:
    """Return ` (did you mean 'optimizer.lr'?)` for `lr` and for `optimizer.lrr`, or the empty string."""
    group, dot, name = key.rpartition(".")
    siblings = [each.rpartition(".")[2] for each in known if each.rpartition(".")[0] == group]
    if near := did_you_mean(name, siblings, f"{group}{dot}"):
        return near
    alike = _ending_alike(name, known)
    if alike:
        return did_you_mean(key, alike) or f" (did you mean '{alike[0]}'?)"
    if group and siblings:
        return ""  # the name of a group that exists makes all its options look alike
    return did_you_mean(key, known)


def _ending_alike(last: str, known: Collection[str]) -> list[str]:
    """Return the options whose last part is `last`, without Hydra's own and what a search names."""
    others = ("hydra.", "sweep.params.")
    return [key for key in known if key.rpartition(".")[2] == last and not key.startswith(others)]


def may_be_new(key: str) -> bool:
    """Return whether an option that the YAMLs do not list may be added or removed."""
    group, dot, name = key.partition(".")
    if group == "hydra":
        return name.startswith(_FREE_OF_HYDRA)
    if group == "trainer":
        return bool(name) and name not in _NEEDED_OF_TRAINER
    return f"{key}.".startswith(OPEN) or (bool(dot) and group in _OF_CLASSES)


# Groups of Hydra's own with names of the user's.
_FREE_OF_HYDRA = (
    *("callbacks.", "launcher.", "sweeper.", "job.env_set."),
    *("job_logging.", "hydra_logging."),
)
# Options of the trainer that lmft reads itself.
_NEEDED_OF_TRAINER = (
    *("accelerator", "devices", "precision", "max_epochs", "max_steps", "max_tokens"),
    *("accumulate_grad_batches", "limit_train_batches", "limit_val_batches", "log_every_n_steps"),
)


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


def _values(override: Override) -> Iterator[Any]:
    if not override.is_sweep_override():
        yield override.value()
    elif override.is_discrete_sweep():
        yield from (parse(f"x={text}").value() for text in override.sweep_string_iterator())


def check_type(key: str, value: Any, default: Any, where: str | None) -> None:
    """Check that a value has the type of its option's default. Raises: UserError."""
    may_be_null = key.partition(".")[0] in (*_OF_CLASSES, *_OF_SCHEMAS) or key in _GROUPS_OF_NULL
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
        return isinstance(value, dict), f"a group of options ({', '.join(default)})"
    return True, "anything"
