"""The flags of a command line: Hydra's, `--from` and `--verbose`."""

import argparse
import re
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from lmft import __version__
from lmft.config import command_line, overrides
from lmft.config.sources import Sources
from lmft.errors import UserError

# Flags that only print something.
_SHOWING = ("help", "hydra_help", "shell_completion", "cfg", "info")


def parsed(argv: Sequence[str], command: str) -> Namespace:
    """Return the flags, by Hydra's names, the `overrides` and the `sources` of a command line.

    Raises: UserError for flags that do not exist or do not go together.
    """
    parser = get_args_parser()
    parser.add_argument("--from", dest="from_run", metavar="RUN")
    for action in parser._actions:
        if isinstance(action, argparse._VersionAction):
            action.version = f"lmft {__version__}, {action.version}"
    parser.add_argument("--verbose", action="store_true")
    setattr(parser, "error", _refuse)  # noqa: B010 (argparse would print all flags)
    _check_names(argv, list(parser._option_string_actions), command)
    flags = parser.parse_intermixed_args(argv)
    flags.sources = Sources(flags.config_name, flags.config_path, flags.config_dir)
    _check(flags)
    return flags


def shows_something(flags: Namespace) -> bool:
    """Return whether the command line asks to print something, and to run nothing."""
    return any(getattr(flags, name) for name in _SHOWING)


def for_hydra(flags: Namespace) -> list[str]:
    """Return the arguments for Hydra: the flags that it has to read, then the overrides."""
    switches = ("help", "hydra_help", "shell_completion", "resolve", "multirun", "run")
    words = [f"--{name.replace('_', '-')}" for name in switches if getattr(flags, name)]
    for name in ("cfg", "info", "package", "config_name"):
        value = getattr(flags, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", value]
    return [*words, *flags.overrides]


def _refuse(message: str) -> NoReturn:
    raise UserError(message, fix="--hydra-help lists the flags")


def _check_names(argv: Sequence[str], known: Sequence[str], command: str) -> None:
    """Raise UserError for options written as flags: `--lr 3`."""
    for argument, following in zip(argv, [*argv[1:], "-"], strict=False):
        flag, _, value = argument.partition("=")
        if not re.match(r"--?[A-Za-z]", flag) or any(name.startswith(flag) for name in known):
            continue
        if not flag.startswith("--") and flag[:2] in known:  # its value follows without a space: -cjob
            continue
        if not value:
            value = "…" if following.startswith("-") else following
        name = overrides.full_name(flag.lstrip("-"), command_line.known_options(command))
        raise UserError(f"there is no flag {flag}", fix=f"options are written key=value: {name}={value}")


def _check(flags: Namespace) -> None:
    modes = [f"--{name}" for name in ("run", "multirun", "cfg", "info") if getattr(flags, name)]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} exclude each other", fix=f"leave out {modes[0]}")
    if flags.verbose and (flags.multirun or shows_something(flags)):
        what = "--verbose shows the whole config of a single run when it begins"
        raise UserError(what, fix="--cfg job shows it without a run")
    if flags.resolve and not (flags.cfg or flags.help):
        raise UserError("--resolve goes with --cfg or --help")
    if flags.package is not None and not flags.cfg:
        raise UserError("--package goes with --cfg", fix=f"--cfg job --package {flags.package}")
    if flags.experimental_rerun is not None:
        what = "--experimental-rerun reads a pickle, which lmft does not write"
        raise UserError(what, fix="--from RUN trains with a run's config again")
