"""Run a command: Hydra composes its config, mistakes are reported in one to three lines."""

import atexit
import functools
import gc
import io
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lmft.cli import completion, grid
from lmft.cli.flags import for_hydra, parsed, shows_something
from lmft.cli.job import SweepJob, Task, implied_choices, implied_end, single_job
from lmft.cli.launchers import own_launchers
from lmft.cli.sweep import LinkBest, Sweep
from lmft.cli.sweep_secrets import in_environment, split
from lmft.config import command_line, contradictions, grammar, hydra_config, overrides
from lmft.config.hydra_errors import (
    check_launcher_is_installed,
    config_errors_are_user_errors,
    target_errors_are_user_errors,
)
from lmft.config.several_values import first_value, last_value, refuse_several_values, with_names
from lmft.errors import UserError, user_errors_end_the_process
from lmft.reporting.phase import first_phase
from lmft.runs.log import buffering_logs
from lmft.runs.redaction import Redactor
from lmft.runs.rerun import recorded_command
from lmft.sweeps.checks import check_sweep, refuse_single_run
from lmft.sweeps.sweeper import searching
from lmft.system.processes import rank
from lmft.system.signals import Stopped, handling_signals


@user_errors_end_the_process()
def run_command(
    command: str,
    task: Task,
    argv: Sequence[str] | None = None,
    makes_runs: bool = False,
    takes_from: bool | None = None,
    link_best: LinkBest | None = None,
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
        takes_from: whether --from gives it the arguments of a run; None: if it makes runs.
        link_best: links the best run of a sweep that has ended.
    """
    _end_without_garbage_collection()
    if takes_from is None:
        takes_from = makes_runs
    if argv is None:
        argv = sys.argv[1:]
    argv = [grammar.quote_for_hydra(argument) for argument in argv]
    if not {"", str(Path.cwd())} & set(sys.path):
        # For the user's own classes; `python -m` adds this folder itself.
        sys.path.append(str(Path.cwd()))
    with handling_signals(), _stops_end_the_process(), buffering_logs():
        flags = parsed(argv, command)
        if flags.from_run is not None:
            _begin_from_run(flags, command, takes_from)
        flags.overrides = with_names(implied_end(flags.overrides), command, flags.sources)
        if flags.config_name is None:  # a YAML named by --config-name makes its own choices
            flags.overrides = implied_choices(flags.overrides, ask_hub=False)
        if shows_something(flags):
            _show(command, task, flags)
            return
        with first_phase("reading the options"):
            is_sweep = _check(command, flags)
            if flags.config_name is None:
                flags.overrides = implied_choices(flags.overrides, ask_hub=True)
        if is_sweep:
            _run_sweep(command, task, flags, makes_runs, link_best)
        else:
            _run_once(command, task, flags, makes_runs)


@functools.cache
def _end_without_garbage_collection() -> None:
    """Exempt from it, when the process ends, all objects there are then.

    Python looks through them several times while it ends: 600,000 objects once PyTorch, Lightning and
    transformers are loaded, which took 2.3 s of CPU time of 2.5 s. Registered before the handlers of
    those libraries, this runs after them.
    """
    atexit.register(gc.freeze)


@contextmanager
def _stops_end_the_process() -> Iterator[None]:
    try:
        yield
    except Stopped as stopped:
        if not stopped.is_silent and (stopped.signum != signal.SIGPIPE or stopped.command is not None):
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)


def _begin_from_run(flags: Namespace, command: str, takes_from: bool) -> None:
    """Put the flags and overrides that a finished run was made by before those that are given."""
    if not takes_from:
        what = f"--from starts a training, and this is lmft.{command}"
        raise UserError(what, f"--from {flags.from_run}", f"run={flags.from_run}")
    recorded = recorded_command(Path(flags.from_run), flags.overrides)
    for name in ("config_name", "config_path", "config_dir"):
        if getattr(flags, name) is not None:
            what = f"--from and --{name.replace('_', '-')} both choose the config"
            raise UserError(what, f"--from {flags.from_run}", "leave one of them out")
    flags.sources = recorded.sources
    flags.config_name = recorded.sources.name
    flags.overrides = recorded.overrides


def _show(command: str, task: Task, flags: Namespace) -> None:
    """Print what a flag asks for; to save time, help is only checked for mistakes after an error."""
    nothing = functools.wraps(task)(lambda _: None)
    try:
        if flags.help:  # faster than Hydra's own, which lists all groups of all search paths
            single = [first_value(grammar.parse(override)) for override in flags.overrides]
            print(hydra_config.composed(single, command, flags.sources).hydra.help.template)
        elif flags.shell_completion:
            completion.complete(command, flags)
        elif flags.cfg or flags.info:
            _check(command, flags)
            _check_package(command, flags)
            shown = io.StringIO()
            with redirect_stdout(shown):
                _hydra_main(command, nothing, flags)
            print(_without_secrets(shown.getvalue(), command, flags), end="")
        else:
            _hydra_main(command, nothing, flags)
    except (UserError, ValueError):  # Hydra raises ValueError for `model=null`
        if not (flags.hydra_help or flags.shell_completion):
            _check(command, flags)
        raise


def _check_package(command: str, flags: Namespace) -> None:
    """Raise UserError if --package names nothing in the config."""
    if flags.package in (None, "_global_"):
        return
    composed = hydra_config.composed(flags.overrides, command, flags.sources)
    if OmegaConf.select(composed, flags.package, throw_on_resolution_failure=False) is None:
        known = command_line.options_of(composed)
        what = f"there is no '{flags.package}' in the config{overrides.nearest(flags.package, known)}"
        raise UserError(what, f"--package {flags.package}")


def _without_secrets(shown: str, command: str, flags: Namespace) -> str:
    """Return what is shown of a config with its secrets replaced."""
    composed = hydra_config.composed(flags.overrides, command, flags.sources)
    redactor = Redactor({"config": OmegaConf.to_container(composed)})
    tree = yaml.safe_load(shown) if flags.cfg else None
    if isinstance(tree, dict):
        redacted = redactor.value(tree)
        if redacted != tree:
            return yaml.safe_dump(redacted, sort_keys=False, allow_unicode=True)
    return redactor.text(shown)


def _check(command: str, flags: Namespace) -> bool:
    """Check the command line, and return whether it asks for a sweep. Raises: UserError."""
    if command != "train":
        fix = "leave it out; it is an option of lmft.train"
        contradictions.refuse_unread(flags.overrides, {"run.dry": fix}, f"lmft.{command}")
    defaults = command_line.check(flags.overrides, command, flags.sources)
    if flags.multirun and "hydra.mode=RUN" in flags.overrides:
        raise UserError("--multirun and hydra.mode=RUN exclude each other", fix="leave one of them out")
    is_sweep = flags.multirun or defaults.hydra.mode == RunMode.MULTIRUN
    if not is_sweep:
        refuse_single_run(defaults)
        refuse_several_values(flags.overrides)
    overrides.check_launcher(flags.overrides, is_sweep)
    if is_sweep and flags.verbose:
        what = "--verbose shows the whole config of a single run, and this is a sweep"
        raise UserError(what, fix="leave it out; each job's config.yaml has all options")
    if is_sweep:
        check_launcher_is_installed(defaults.hydra.runtime.choices.get("hydra/launcher"))
    return is_sweep


def _run_once(command: str, task: Task, flags: Namespace, makes_runs: bool) -> None:
    errors: list[Exception] = []
    reading = ExitStack()
    arguments = [*flags.sources.arguments, *flags.overrides]

    @functools.wraps(task)  # Hydra takes the command's name from the task
    def job(composed: DictConfig) -> None:
        from lmft.reporting.notices import collecting_notices

        reading.close()
        try:
            with (
                target_errors_are_user_errors(),
                buffering_logs(),
                _shown_by_first_process(makes_runs),  # when Hydra has set up the log
                collecting_notices(),
            ):
                job = single_job(composed, arguments, flags.overrides)
                task(replace(job, is_verbose=flags.verbose))
        except Exception as error:
            # Raised below: Hydra would add a message of its own, with every override in it.
            errors.append(error)

    with reading:
        reading.enter_context(first_phase("reading the options"))
        _hydra_main(command, job, flags)
    if errors:
        raise errors[0]


@contextmanager
def _shown_by_first_process(trains: bool) -> Iterator[None]:
    """Mute the terminal in the block if this is a further process of a training.

    Other commands have one process each, whatever number a cluster has given it.
    """
    if not trains or rank() == 0:
        yield
        return
    from lmft.reporting.terminal import muted

    with muted():
        yield


def _run_sweep(
    command: str, task: Task, flags: Namespace, makes_runs: bool, link_best: LinkBest | None
) -> None:
    sources = flags.sources
    given = [grammar.parse(override) for override in flags.overrides]
    first = hydra_config.composed([first_value(override) for override in given], command, sources)
    check_sweep(given, first, command, sources, makes_runs)
    if params := grid.params_of(first):
        command_line.check([*params, *flags.overrides], command, sources)
    if makes_runs:
        last = hydra_config.composed([last_value(override) for override in given], command, sources)
        Sweep.check_has_one_folder(first, last)
    with hydra_config.hydra_node_of(first):
        sweep = Sweep.begin(given, first, makes_runs)

    without_secrets, secrets = split(flags.overrides)
    job = SweepJob(command, task, sweep, sources, without_secrets)
    given_arguments = [*sources.arguments, *flags.overrides]
    flags.multirun = True
    flags.overrides = [*sweep.hydra_overrides, *without_secrets, "hydra.mode=MULTIRUN"]
    try:
        if makes_runs:
            sweep.live.draw({})
        with (
            in_environment(secrets),
            grid.in_place_of_hydras(),
            searching(first),
            own_launchers(),
        ):
            _hydra_main(command, job, flags)
    except Stopped as stopped:
        if makes_runs:
            redactor = Redactor({"config": OmegaConf.to_container(first)})
            stopped.command = sweep.command(command, given_arguments, redactor)
        raise
    finally:
        exit_code = sweep.end(link_best)
    sys.exit(exit_code)


@config_errors_are_user_errors()
def _hydra_main(command: str, task: Callable[[DictConfig], Any], flags: Namespace) -> None:
    """Run `task` under Hydra, which reads `sys.argv`, and raise its errors."""
    before = sys.argv
    sys.argv = [before[0], *for_hydra(flags)]
    folder = str(flags.sources.main_folder)
    try:
        # HYDRA_FULL_ERROR: otherwise Hydra prints errors itself, and exits.
        with _environment("HYDRA_FULL_ERROR", "1"), flags.sources.searched():
            hydra.main(folder, command, hydra_config.HYDRA_VERSION)(task)()
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
