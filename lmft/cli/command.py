"""The shell that every command shares: Hydra composes the config, mistakes are said in one to three lines."""

import functools
import math
import os
import re
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lmft.cli import help
from lmft.cli.sweep import Sweep, job_name
from lmft.config import contradictions, load, overrides
from lmft.config.hydra_errors import config_errors_are_user_errors, target_errors_are_user_errors
from lmft.config.implied import with_implied_choices
from lmft.config.load import Job, choices_of
from lmft.errors import UserError, user_errors_end_the_process
from lmft.runs.log import buffering_logs
from lmft.runs.redaction import Redactor
from lmft.system.signals import Stopped, handling_signals

# What conf/hydra/lmft.yaml calls.
OmegaConf.register_new_resolver("lmft.choices", help.choices, replace=True)
OmegaConf.register_new_resolver("lmft.usage", help.usage, replace=True)
OmegaConf.register_new_resolver("lmft.job_name", job_name, replace=True)


Task = Callable[[Job], float | None]


@user_errors_end_the_process()
def run_command(
    command: str, task: Task, argv: Sequence[str] | None = None, makes_runs: bool = False
) -> None:
    """Composes the config and does `task`: once, or in a sweep once for each combination of values.

    Args:
        command: the command's name, which is its YAML's too.
        task: is given the job; returns what a sweeper is to minimise.
        argv: the arguments after the command's name; the process's own if None.
        makes_runs: whether each job leaves a run's folder.

    Exits with 2 after a user's mistake, which is said on stderr; any other error is raised. A sweep goes on
    after a job's error, and exits with 2 if all errors were user's mistakes, else with 1. SIGTERM, Ctrl-C,
    and output that nobody reads any more, end all of it, with exit code 143, 130 or 141.
    """
    argv = [overrides.quote_for_hydra(argument) for argument in (sys.argv[1:] if argv is None else argv)]
    if not {"", str(Path.cwd())} & set(sys.path):
        # Where classes of one's own lie; `python -m` has put it there already.
        sys.path.append(str(Path.cwd()))
    with handling_signals(), _stops_end_the_process(), buffering_logs():
        _check_flag_names(argv, command)
        flags = get_args_parser().parse_intermixed_args(argv)
        rest = [argument for argument in argv if argument not in flags.overrides]
        shows = any(getattr(flags, name) for name in _SHOWING)
        _check_flags(flags)
        if flags.config_name is None:  # whose YAML makes the choices
            flags.overrides = _with_implied_choices(flags.overrides, ask_hub=False)
        if shows:
            _show(command, task, [*flags.overrides, *rest], flags)
            return
        is_sweep = _check(command, flags)
        if flags.config_name is None:
            flags.overrides = _with_implied_choices(flags.overrides, ask_hub=True)
        argv = [*flags.overrides, *rest]  # Hydra mixes none
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


# Flags that have something printed, and no more.
_SHOWING = ("help", "hydra_help", "shell_completion", "cfg", "info")


def _check_flag_names(argv: Sequence[str], command: str) -> None:
    """Raises UserError for options written as flags: `--lr 3`."""
    known = list(get_args_parser()._option_string_actions)
    for place, argument in enumerate(argv):
        flag, _, value = argument.partition("=")
        if not re.match(r"--?[A-Za-z]", flag) or any(name.startswith(flag) for name in known):
            continue
        if not flag.startswith("--") and flag[:2] in known:  # its value is written behind it: -cjob
            continue
        following = argv[place + 1] if place + 1 < len(argv) and not argv[place + 1].startswith("-") else "…"
        name = overrides.full_name(flag.lstrip("-"), load.known_options(command))
        fix = f"options are written key=value: {name}={value or following}"
        raise UserError(f"there is no flag {flag}", fix=fix)


def _check_flags(flags: Namespace) -> None:
    modes = [f"--{name}" for name in ("run", "multirun", "cfg", "info") if getattr(flags, name)]
    if len(modes) > 1:
        raise UserError(f"{' and '.join(modes)} exclude each other", fix=f"leave out {modes[0]}")
    if flags.resolve and not (flags.cfg or flags.help):
        raise UserError("--resolve goes with --cfg or --help")


def _show(command: str, task: Task, argv: list[str], flags: Namespace) -> None:
    """Prints what is asked for. A mistake is looked for only when Hydra minds: composing twice takes its
    time.
    """
    try:
        if flags.help:  # Hydra would list every group of every search path first, needed or not
            composed = load.composed(flags.overrides, flags.config_name or command, flags.config_dir)
            print(composed.hydra.help.template)
        else:
            _hydra_main(command, functools.wraps(task)(lambda _: None), argv)
    except (UserError, ValueError):  # Hydra's for `model=null`
        if not (flags.hydra_help or flags.shell_completion):
            _check(command, flags)
        raise


def _check(command: str, flags: Namespace) -> bool:
    """Finds mistakes in the command line. Returns whether it asks for a sweep. Raises: UserError."""
    defaults = load.check(flags.overrides, flags.config_name or command, flags.config_dir)
    is_sweep = flags.multirun or defaults.hydra.mode == RunMode.MULTIRUN
    if not is_sweep:
        overrides.refuse_several_values(flags.overrides)
    return is_sweep


def _run_once(command: str, task: Task, argv: list[str]) -> None:
    errors: list[Exception] = []

    @functools.wraps(task)  # Hydra reads the command's name off the task
    def job(composed: DictConfig) -> None:
        try:
            with target_errors_are_user_errors(), buffering_logs():
                task(_job(composed, argv, argv))
        except Exception as error:
            # Raised below: Hydra would add words of its own, with every override in them.
            errors.append(error)

    _hydra_main(command, job, argv)
    if errors:
        raise errors[0]


def _run_sweep(command: str, task: Task, argv: list[str], flags: Namespace, makes_runs: bool) -> None:
    given = [overrides.parse(override) for override in flags.overrides]
    first = load.composed([load.first_value(override) for override in given], command, flags.config_dir)
    sweep = Sweep.begin(given, first, makes_runs)
    config_dir = ["--config-dir", flags.config_dir] if flags.config_dir else []

    @functools.wraps(task)
    def job(composed: DictConfig) -> float | None:
        folder = Path(HydraConfig.get().runtime.output_dir)
        number = HydraConfig.get().job.num + 1
        with sweep.attempt(folder, number, Redactor({"config": OmegaConf.to_container(composed)})):
            composed = _of_one_folder(composed, command, flags.config_dir)
            return task(_job_of_sweep(composed, config_dir, folder if makes_runs else None, argv))
        return math.nan

    try:
        _hydra_main(command, job, [*sweep.hydra_overrides, *argv])
    finally:
        exit_code = sweep.end()
    sys.exit(exit_code)


@config_errors_are_user_errors()
def _with_implied_choices(overrides: list[str], ask_hub: bool) -> list[str]:
    return with_implied_choices(overrides, ask_hub)


def _of_one_folder(composed: DictConfig, command: str, extra_folder: str | None) -> DictConfig:
    """The config of a sweep's job, whose one folder of several tells the model's family."""
    given = _typed_overrides()
    overrides = _with_implied_choices(given, ask_hub=True)
    if overrides == given:
        return composed
    holder = GlobalHydra.instance()
    outer = holder.hydra
    holder.clear()
    try:
        composed = load.composed(overrides, command, extra_folder)
    finally:
        holder.hydra = outer  # of the sweep that goes through the jobs
    HydraConfig.instance().set_config(composed)
    return composed


def _typed_overrides() -> list[str]:
    """The job's overrides as they were typed, interpolations in them unresolved."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(typed, list)
    return [str(override) for override in typed]


def _job(composed: DictConfig, argv: list[str], command_line: list[str]) -> Job:
    overrides = _typed_overrides()
    plain = load.plain(composed, command_line)
    if not isinstance(plain.get("run"), str):  # else the options stand beside those of the run
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
    # A trainer that starts processes starts them with these: for this job, not the sweep.
    sys.argv[1:] = job.arguments
    return job


@config_errors_are_user_errors()
def _hydra_main(command: str, task: Callable[[DictConfig], Any], argv: list[str]) -> None:
    """Hands over to Hydra, which reads `sys.argv`; what it raises comes out."""
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
