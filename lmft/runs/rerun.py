"""The command line that trains once more by the config of a finished run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override

from lmft.config import command_line, hydra_config, several_values
from lmft.config.grammar import assignment, parse, quote_for_hydra, written
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.overrides import may_be_new
from lmft.config.sources import Sources
from lmft.config.trust import COMMAND_LINE_ALONE
from lmft.errors import UserError
from lmft.runs.folder import RunFolder, existing_run
from lmft.runs.redaction import REDACTED
from lmft.runs.resume import recorded_settings

_OF_THE_RUN = ("run.name", "resume")  # a new run has a new name, and begins at its beginning


@dataclass(frozen=True)
class RecordedCommand:
    """The flags and arguments of a run."""

    sources: Sources
    overrides: list[str]
    """`key=value` arguments: the choices of YAMLs, then the values that differ from theirs."""


@config_errors_are_user_errors()
def recorded_command(path: Path, given: Sequence[str]) -> RecordedCommand:
    """Return the command line that composes the config of the run in folder `path`, and what is `given`.

    The YAMLs are those that the run's command chose. Each value of its config.yaml that they do not
    state is given as an argument, so that YAMLs that have changed since change nothing. A group whose
    YAML is chosen again takes none of the run's values.

    Args:
        path: the run's folder, or its config.yaml.
        given: further `key=value` arguments, which take precedence.

    Raises: UserError if there is no run, it was not begun by a command, or a secret of it is missing.
    """
    run = existing_run(path.parent if path.name == RunFolder(path).config.name else path)
    flags = get_args_parser().parse_intermixed_args(_arguments_of(run))
    sources = Sources(flags.config_name, flags.config_path, flags.config_dir)
    recorded = [parse(quote_for_hydra(argument)) for argument in flags.overrides]
    given = several_values.with_names(given, "train", sources)
    new = [parse(argument) for argument in given]
    replaced = {override.key_or_group for override in new}
    groups = command_line.groups(sources)
    choices = [override for override in recorded if command_line.is_choice(override, groups)]
    chosen = [str(override.input_line) for override in choices]
    base = hydra_config.resolved(hydra_config.composed(chosen, "train", sources))
    kept = [str(override.input_line) for override in choices if override.key_or_group not in replaced]
    values = [
        override
        for override in differences(base, recorded_settings(run), "")
        if not _is_replaced(override.key_or_group, replaced)
    ]
    _check_can_be_recorded(values, run)
    return RecordedCommand(sources, [*kept, *[str(value.input_line) for value in values], *given])


def _arguments_of(run: RunFolder) -> list[str]:
    """Return the arguments in a run's command.txt. Raises: UserError if Python code began the run."""
    words = shlex.split(run.command.read_text("utf-8").splitlines()[-1])
    if words[:2] != ["python", "-m"]:
        what = f"the run in {run.path} was begun by Python code, so its YAMLs are not known"
        raise UserError(what, str(run.command), f"api.train(yaml.safe_load(open('{run.config}')))")
    return words[3:]


def _is_replaced(key: str, replaced: set[str]) -> bool:
    """Return whether an option, or a group that it is in, is given again."""
    return any(key == name or key.startswith(f"{name}.") for name in (*replaced, *_OF_THE_RUN))


def differences(base: Mapping[str, Any], recorded: Mapping[str, Any], prefix: str) -> Iterator[Override]:
    """Yield an override for each value of `recorded` that differs from that of `base`.

    Args:
        base: a config, or a group of one.
        recorded: the same with other values.
        prefix: the group's key with a dot; empty for a whole config.
    """
    for name, value in recorded.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping) and value:
            yield from differences(base[name], value, f"{key}.")
        elif name not in base or repr(base[name]) != repr(value):  # 1 and 1.0 may mean different things
            typed = key if name in base else f"++{key}"
            is_text = isinstance(value, str)
            typed = assignment(typed, value) if is_text else f"{typed}={written(value)}"
            yield parse(quote_for_hydra(typed))
    for name in base:
        key = f"{prefix}{name}"
        if name not in recorded and may_be_new(key):
            yield parse(f"~{key}")


def _check_can_be_recorded(values: Sequence[Override], run: RunFolder) -> None:
    """Raise UserError for a value that has to be typed: a secret, or trust in code."""
    for value in values:
        key = value.key_or_group
        if REDACTED in str(value.input_line):
            what = "a run's files hold no secrets, so this one has to be given again"
            raise UserError(what, f"{key} in {run.config}", f"++{key}=…")
        if key in COMMAND_LINE_ALONE:
            fix = f"add {str(value.input_line).lstrip('+')}, if you know what that runs"
            raise UserError(f"{key} counts only on the command line", str(run.config), fix)
