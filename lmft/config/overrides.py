"""The command line's `key=value` arguments: written so that Hydra reads what was meant, and checked."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import OverrideParseException

from lmft.errors import UserError, did_you_mean

# Values taken as they were typed: [MASK] is no list there.
FREE_TEXT = {"text", "prompt", "chat", "completion"}
# These take keys that the config does not have: model.config.n_layers=4.
OPEN = ("model.config.", "model.generation.", "model.shape.", "scheduler.options.")
# These hold the arguments of a class, which may take more than the YAML lists.
_OF_CLASSES = ("trainer", "optimizer", "callbacks", "logger", "objective", "hydra")
# What other tools call it: last part of the name -> ours.
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
# Hydra takes no null for a group.
_NONE_CHOSEN = {
    "logger=null": "logger=none",
    "callbacks=null": "callbacks=none",
    "experiment=null": "~experiment",
    "debug=null": "~debug",
}
# How a list, dict, quote, interpolation or function begins.
_STRUCTURED_VALUE = re.compile(r"""[\[{'"]|\$\{|\w+\(""")


def parse(argument: str) -> Override:
    """One `key=value` by Hydra's grammar. Raises: hydra.errors.OverrideParseException."""
    return OverridesParser.create().parse_overrides([argument])[0]


def quote_for_hydra(argument: str) -> str:
    """`argument` so that Hydra reads it as it was meant.

    Free text, and what the grammar cannot read as a value (`run=runs/sweep/seed=1`), is quoted; `~/` at the
    beginning of a value is the user's home; new keys of the open nodes get the `++` that Hydra asks for.
    Idempotent.
    """
    argument = _NONE_CHOSEN.get(argument, argument)
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    if f"{key}.".startswith(OPEN) and value != "null":
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
    override = parse(quote_for_hydra(typed))
    return typed if not override.is_sweep_override() and override.value() == text else f"{key}={quoted(text)}"


def check_overrides(given: Collection[Override], known: Mapping[str, Any]) -> None:
    """Finds mistyped keys and values of a wrong type.

    Args:
        given: overrides of values, not of groups.
        known: key with dots -> its default value, of every key of the config.

    Raises: UserError.
    """
    for override in given:
        key = override.key_or_group
        if key not in known and not ((override.is_add() or override.is_force_add()) and _may_be_new(key)):
            raise unknown(key, known, override.input_line)
        if override.is_delete() and not _may_be_new(key):
            fix = f"give it another value: {key}=…"
            raise UserError(f"'{key}' is read, and cannot be taken out", override.input_line, fix)
        if not key.startswith(_UNTYPED) and not override.is_delete():
            for value in _values(override):
                _check_type(override, value, known.get(key))


def unknown(key: str, known: Collection[str], where: str | None) -> UserError:
    """What to answer to an option that there is not."""
    ours = _OTHER_NAMES.get(key.rpartition(".")[2])
    if ours:
        return UserError(f"unknown option '{key}'", where, f"here it is called {ours}")
    return UserError(f"unknown option '{key}'{nearest(key, known)}", where, _how_to_find(key))


def full_name(name: str, known: Collection[str]) -> str:
    """The option that is meant by `lr`, `learning_rate` or `batch-size`; the name itself where none is found."""
    name = name.replace("-", "_")
    if name in _OTHER_NAMES:
        return _OTHER_NAMES[name]
    same_end = (key for key in known if key.rpartition(".")[2] == name and not key.startswith("hydra."))
    return next(same_end, name)


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


def _may_be_new(key: str) -> bool:
    """Whether something reads an option that the YAML files do not list."""
    group, dot, name = key.partition(".")
    if group == "trainer":
        return bool(name) and name not in _NEEDED_OF_TRAINER
    return f"{key}.".startswith(OPEN) or (bool(dot) and group in _OF_CLASSES)


# What this project reads of the trainer's options itself.
_NEEDED_OF_TRAINER = (
    *("accelerator", "devices", "precision", "max_epochs", "max_steps", "accumulate_grad_batches"),
    *("limit_train_batches", "limit_val_batches", "log_every_n_steps"),
)


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
    has_class = "." in key and key.partition(".")[0] in _OF_CLASSES
    return (
        f"{fix}; an argument of the class that it does not list needs a plus sign: +{key}=…"
        if has_class
        else fix
    )


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
        key = override.key_or_group
        fix = (
            f"run.name={value} names a run; lmft.evaluate and lmft.predict take run=FOLDER"
            if key == "run"
            else None
        )
        raise UserError(f"'{key}' is {wanted}, not {value!r}", override.input_line, fix)


def _mismatch(value: Any, default: Any) -> str | None:
    """What a value of the default's kind is called, if `value` is of another kind."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        return None if isinstance(value, int) and not isinstance(value, bool) else "a whole number"
    if isinstance(default, float):
        return None if isinstance(value, int | float) and not isinstance(value, bool) else "a number"
    if isinstance(default, list) and default:
        return None if isinstance(value, list) else f"a list such as {default}"
    if isinstance(default, dict):
        return None if isinstance(value, dict) else f"a group of options ({', '.join(default)})"
    return None
