"""Run a command: Hydra composes its config, mistakes are reported in one to three lines."""

import functools
import io
import math
import os
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lmft.cli import help
from lmft.cli.sweep import Sweep, job_name
from lmft.config import contradictions, load, overrides
from lmft.config.hydra_errors import config_errors_are_user_errors, target_errors_are_user_errors
from lmft.config.implied import with_implied_choices, with_implied_end
from lmft.config.load import Job, choices_of
from lmft.errors import UserError, user_errors_end_the_process
from lmft.runs.log import buffering_logs
from lmft.runs.redaction import Redactor
from lmft.sweeps.checks import check_sweep, refuse_single_run
from lmft.sweeps.sweeper import searching
from lmft.system.signals import Stopped, handling_signals

# Functions that conf/hydra/lmft.yaml calls.
OmegaConf.register_new_resolver("lmft.choices", help.choices, replace=True)
OmegaConf.register_new_resolver("lmft.usage", help.usage, replace=True)
OmegaConf.register_new_resolver("lmft.job_name", job_name, replace=True)


Task = Callable[[Job], float | None]


@user_errors_end_the_process()
def run_command(
    command: str, task: Task, argv: Sequence[str] | None = None, makes_runs: bool = False
) -> None:
    """Compose the config and run `task`: once, or in a sweep once for each combination of values.

    Exits with 2 after a mistake of the user, which is reported on stderr; any other error is raised. A
    sweep continues after a job's error, and exits with 2 if all errors were mistakes of the user, else
    with 1. SIGTERM, Ctrl-C and closed output end the command, with exit code 143, 130 or 141.

    Args:
        command: the command's name, which is also that of its YAML.
        task: runs a job; returns the value that a sweeper minimises.
        argv: the arguments after the command's name; None: those of the process.
        makes_runs: whether each job leaves a run folder.
    """
    if argv is None:
        argv = sys.argv[1:]
    argv = [overrides.quote_for_hydra(argument) for argument in argv]
    if not {"", str(Path.cwd())} & set(sys.path):
        # For the user's own classes; `python -m` adds this folder itself.
        sys.path.append(str(Path.cwd()))
    with handling_signals(), _stops_end_the_process(), buffering_logs():
        _check_flag_names(argv, command)
        flags = get_args_parser().parse_intermixed_args(argv)
        rest = [argument for argument in argv if argument not in flags.overrides]
        _check_flags(flags)
        flags.overrides = _with_implied_end(flags.overrides)
        if flags.config_name is None:  # a YAML named by --config-name makes its own choices
            flags.overrides = _with_implied_choices(flags.overrides, ask_hub=False)
        if any(getattr(flags, name) for name in _SHOWING):
            _show(command, task, [*flags.overrides, *rest], flags)
            return
        is_sweep = _check(command, flags)
        if flags.config_name is None:
            flags.overrides = _with_implied_choices(flags.overrides, ask_hub=True)
        argv = [*flags.overrides, *rest]  # Hydra does not take flags among overrides
        if is_sweep:
            _run_sweep(command, task, argv, flags, makes_runs)
        else:
            _run_once(command, task, argv)


@contextmanager
def _stops_end_the_process() -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        if not stopped.is_silent and (stopped.signum != signal.SIGPIPE or stopped.command is not None):
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)


# Flags that only print something.
_SHOWING = ("help", "hydra_help", "shell_completion", "cfg", "info")


def _check_flag_names(argv: Sequence[str], command: str) -> None:
    """Raise UserError for options written as flags: `--lr 3`."""
    known = list(get_args_parser()._option_string_actions)
    for argument, following in zip(argv, [*argv[1:], "-"], strict=False):
        flag, _, value = argument.partition("=")
        if not re.match(r"--?[A-Za-z]", flag) or any(name.startswith(flag) for name in known):
            continue
        if not flag.startswith("--") and flag[:2] in known:  # its value follows without a space: -cjob
            continue
        if not value:
            value = "…" if following.startswith("-") else following
        name = overrides.full_name(flag.lstrip("-"), load.known_options(command))
        raise UserError(f"there is no flag {flag}", fix=f"options are written key=value: {name}={value}")


def _check_flags(flags: Namespace) -> None:
    modes = [f"--{name}" for name in ("run", "multirun", "cfg", "info") if getattr(flags, name)]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} exclude each other", fix=f"leave out {modes[0]}")
    if flags.resolve and not (flags.cfg or flags.help):
        raise UserError("--resolve goes with --cfg or --help")


def _without_secrets(shown: str) -> str:
    """Return a config as YAML with its secrets replaced."""
    config = yaml.safe_load(shown)
    if not isinstance(config, dict):
        return shown
    redacted = Redactor(config).value(config)
    if redacted == config:
        return shown
    return yaml.safe_dump(redacted, sort_keys=False, allow_unicode=True)


def _show(command: str, task: Task, argv: list[str], flags: Namespace) -> None:
    """Print what a flag of `_SHOWING` asks for; to save time, check mistakes only after an error."""
    try:
        if flags.help:  # faster than Hydra's own, which lists all groups of all search paths
            composed = load.composed(flags.overrides, flags.config_name or command, flags.config_dir)
            print(composed.hydra.help.template)
        elif flags.cfg:
            shown = io.StringIO()
            with redirect_stdout(shown):
                _hydra_main(command, functools.wraps(task)(lambda _: None), argv)
            print(_without_secrets(shown.getvalue()), end="")
        else:
            _hydra_main(command, functools.wraps(task)(lambda _: None), argv)
    except (UserError, ValueError):  # Hydra raises ValueError for `model=null`
        if not (flags.hydra_help or flags.shell_completion):
            _check(command, flags)
        raise


def _check(command: str, flags: Namespace) -> bool:
    """Check the command line, and return whether it asks for a sweep. Raises: UserError."""
    defaults = load.check(flags.overrides, flags.config_name or command, flags.config_dir)
    is_sweep = flags.multirun or defaults.hydra.mode == RunMode.MULTIRUN
    if not is_sweep:
        refuse_single_run(defaults, [overrides.parse(override) for override in flags.overrides])
        overrides.refuse_several_values(flags.overrides)
    return is_sweep


def _run_once(command: str, task: Task, argv: list[str]) -> None:
    errors: list[Exception] = []

    @functools.wraps(task)  # Hydra takes the command's name from the task
    def job(composed: DictConfig) -> None:
        try:
            with target_errors_are_user_errors(), buffering_logs():
                task(_job(composed, argv, argv))
        except Exception as error:
            # Raised below: Hydra would add a message of its own, with every override in it.
            errors.append(error)

    _hydra_main(command, job, argv)
    if errors:
        raise errors[0]


def _run_sweep(command: str, task: Task, argv: list[str], flags: Namespace, makes_runs: bool) -> None:
    given = [overrides.parse(override) for override in flags.overrides]
    first = load.composed([load.first_value(override) for override in given], command, flags.config_dir)
    check_sweep(given, first, command, flags.config_dir, makes_runs)
    sweep = Sweep.begin(given, first, makes_runs)
    config_dir = ["--config-dir", flags.config_dir] if flags.config_dir else []

    @functools.wraps(task)
    def job(composed: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        number = HydraConfig.get().job.num + 1
        redactor = Redactor({"config": OmegaConf.to_container(composed)})
        with sweep.attempt(folder, number, redactor):
            composed = _with_choices_of_job(composed, command, flags.config_dir)
            return task(_job_of_sweep(composed, config_dir, folder if makes_runs else None, argv))
        return math.nan

    try:
        with searching(first):
            _hydra_main(command, job, [*sweep.hydra_overrides, *argv])
    finally:
        exit_code = sweep.end()
    sys.exit(exit_code)


@config_errors_are_user_errors()
def _with_implied_choices(overrides: list[str], ask_hub: bool) -> list[str]:
    return with_implied_choices(overrides, ask_hub)


@config_errors_are_user_errors()
def _with_implied_end(overrides: list[str]) -> list[str]:
    return with_implied_end(overrides)


def _with_choices_of_job(composed: DictConfig, command: str, extra_folder: str | None) -> DictConfig:
    """Return the config of a sweep's job, composed again with the choices that its own values imply."""
    given = _typed_overrides()
    overrides = _with_implied_choices(_with_implied_end(given), ask_hub=True)
    if overrides == given:
        return composed
    global_hydra = GlobalHydra.instance()
    hydra_of_sweep = global_hydra.hydra
    global_hydra.clear()
    try:
        composed = load.composed(overrides, command, extra_folder)
    finally:
        global_hydra.hydra = hydra_of_sweep
    HydraConfig.instance().set_config(composed)
    return composed


def _typed_overrides() -> list[str]:
    """Return the job's overrides as they were typed, with unresolved interpolations."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [str(override) for override in typed]


def _job(composed: DictConfig, argv: list[str], command_line: list[str]) -> Job:
    overrides = _typed_overrides()
    plain = load.plain(composed, command_line)
    if not isinstance(plain.get("run"), str):  # otherwise most options are those of the run
        contradictions.check(plain, overrides)
    return Job(plain, choices_of(HydraConfig.get()), overrides, argv)


def _job_of_sweep(
    composed: DictConfig, flags: list[str], run_folder: Path | None, command_line: list[str]
) -> Job:
    job = _job(composed, [*flags, *_typed_overrides()], command_line)
    if run_folder is not None:
        name = Path(os.path.relpath(run_folder, job.config["run"]["dir"])).as_posix()
        job.config["run"]["name"] = name
        job.arguments.append(overrides.assignment("run.name", name))
    # A trainer that starts processes passes them these arguments: of this job, not of the sweep.
    sys.argv[1:] = job.arguments
    return job


@config_errors_are_user_errors()
def _hydra_main(command: str, task: Callable[[DictConfig], Any], argv: list[str]) -> None:
    """Run `task` under Hydra, which reads `sys.argv`, and raise its errors."""
    before = sys.argv
    sys.argv = [before[0], *argv]
    try:
        with _environment("HYDRA_FULL_ERROR", "1"):  # otherwise Hydra prints errors itself, and exits
            hydra.main(str(load.config_dir()), command, load.HYDRA_VERSION)(task)()
    finally:
        sys.argv = before


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
