"""The checks of a search before any of its files is written."""

from collections.abc import Mapping, Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lmft.config import command_line, hydra_config
from lmft.config.extras import install_command, is_installed
from lmft.config.hydra_errors import config_errors_are_user_errors
from lmft.config.sources import Sources
from lmft.errors import UserError
from lmft.runs.redaction import is_secret_name
from lmft.sweeps.config import SweepConfig, search_options
from lmft.sweeps.space import Parameter, Space, read_space

_EXAMPLE = "'optimizer.lr=interval(1e-5,1e-3)'"


def is_search(config: DictConfig) -> bool:
    """Return whether a composed config asks for a search."""
    return config.hydra.runtime.choices.get("sweep") not in (None, "none")


def refuse_single_run(config: DictConfig) -> None:
    """Raise UserError if a single run is given a search."""
    if is_search(config):
        name = config.hydra.runtime.choices.sweep
        what = f"sweep={name} searches by several runs, and this is one run"
        raise UserError(what, f"sweep={name}", "add --multirun")


def _refuse_dry_runs(given: Sequence[Override]) -> None:
    for override in given:
        if override.key_or_group == "run.dry" and override.value() is not False:
            what = "run.dry=true estimates one training, and a sweep has several"
            fix = "leave --multirun out, and try the values one by one"
            raise UserError(what, override.input_line, fix)


def check_sweep(
    given: Sequence[Override],
    first: DictConfig,
    command: str,
    sources: Sources,
    makes_runs: bool,
) -> None:
    """Check that a sweep can begin.

    Args:
        given: the command line's overrides.
        first: the config of a first job.
        command: the command's name.
        sources: the folders of YAMLs.
        makes_runs: whether the command trains.

    Raises: UserError.
    """
    _refuse_dry_runs(given)
    if not is_search(first):
        if "optuna" in first.hydra.sweeper._target_:
            what = "hydra-optuna-sweeper ends a search at its first failed trial"
            fix = "sweep=optuna, whose options begin with sweep."
            raise UserError(what, "hydra/sweeper=optuna", fix)
        return
    name = first.hydra.runtime.choices.sweep
    if not makes_runs:
        what = f"sweep={name} searches by trainings, and lmft.{command} does not train"
        raise UserError(what, f"sweep={name}", "python -m lmft.train -m …")
    options = search_options(first)
    _check_installed(options)
    _check_plugins(first, options)
    single = [override.input_line or "" for override in given if not override.is_sweep_override()]
    default = hydra_config.composed(single, command, sources)
    params = {**(first.hydra.sweeper.params or {}), **options.params}
    with config_errors_are_user_errors():
        space = read_space(given, params, default)
    _check_space(space, options)
    _check_validation(default, options)
    for combination in _combinations_of_all_values(space, {*params}):
        command_line.check([*single, *combination], command, sources)


def num_trials(given: Sequence[Override], first: DictConfig) -> int:
    """Return how many trials a search has when it is complete; arguments as of `check_sweep`."""
    options = search_options(first)
    if options.sampler != "grid":
        return options.num_trials
    params = {**(first.hydra.sweeper.params or {}), **options.params}
    return min(options.num_trials, len(read_space(given, params).combinations()))


def _check_installed(options: SweepConfig) -> None:
    needed = ["optuna"]
    if options.sampler == "cmaes":
        needed.append("cmaes")
    for package in needed:
        if not is_installed(package):
            what = f"a search needs the package {package}"
            raise UserError(what, "sweep=optuna", install_command(package))


def _check_plugins(first: DictConfig, options: SweepConfig) -> None:
    """Raise UserError if Hydra's sweeper or launcher is one that the search cannot use."""
    sweeper = first.hydra.sweeper
    if sweeper._target_ != _name(BasicSweeper):
        what = "there are two sweepers"
        raise UserError(what, f"hydra/sweeper is {sweeper._target_}", "leave hydra/sweeper out")
    if sweeper.max_batch_size is not None:
        fix = f"sweep.num_parallel={sweeper.max_batch_size}"
        raise UserError("a search does not read hydra.sweeper.max_batch_size", fix=fix)
    if options.num_parallel > 1 and first.hydra.launcher._target_ == _name(BasicLauncher):
        what = "this launcher runs one job after the other"
        fix = "another launcher; or sweep.num_parallel=1, and the command typed in several terminals"
        raise UserError(what, f"sweep.num_parallel={options.num_parallel}", fix)


def _name(plugin: type) -> str:
    return f"{plugin.__module__}.{plugin.__qualname__}"


def _check_space(space: Space, options: SweepConfig) -> None:
    if not space.parameters:
        what = "there is nothing to search: no option has several values"
        raise UserError(what, "sweep=optuna", f"add {_EXAMPLE}")
    for parameter in space.parameters:
        name = parameter.name
        group = name.partition(".")[0]
        if group in ("sweep", "run", "hydra", "resume"):
            raise UserError(
                f"{name} cannot be searched", f"{name}={parameter.text}", "give it one value"
            )
        if is_secret_name(name):
            what = f"{name} cannot be searched: the search would write its values to a file"
            raise UserError(what, name, "give it one value")
        if options.sampler == "cmaes" and parameter.choices:
            fix = "sweep.sampler=tpe, or one value of it for each search"
            raise UserError("cmaes searches numbers only", f"{name}={parameter.text}", fix)
        if options.sampler == "cmaes" and parameter.condition:
            fix = "sweep.sampler=tpe, or leave the condition out"
            raise UserError("cmaes takes no conditions", f"sweep.params: {name}", fix)
        if options.sampler == "grid" and not parameter.values:
            fix = f"{name}=choice(…) or range(…), or sweep.sampler=tpe"
            raise UserError("a grid has no intervals", f"{name}={parameter.text}", fix)


def _check_validation(default: DictConfig, options: SweepConfig) -> None:
    """Raise UserError if trials have no validation loss, as far as the config alone tells."""
    reader = f"sweep.minimise={options.minimise}"
    if options.prunes:
        reader = f"sweep.pruner={options.pruner}"
    elif "loss" not in options.objectives:
        return
    has_text = OmegaConf.select(default, "data.validation") or (
        OmegaConf.select(default, "data.validation_fraction") != 0
    )
    if not has_text:
        fix = "data.validation=FILE or data.validation_fraction=0.05"
        raise UserError(f"{reader}: there is no validation text", "data.validation_fraction=0", fix)
    if OmegaConf.select(default, "trainer.limit_val_batches") == 0:
        what = f"{reader}: trials have no validation"
        raise UserError(what, "trainer.limit_val_batches=0", "trainer.limit_val_batches=1.0")


def _combinations_of_all_values(space: Space, listed: set[str]) -> list[list[str]]:
    """Return lists of arguments that together have each value of `sweep.params`.

    An option with a condition stands among values that meet it.
    """
    if not listed:
        return []
    always = [parameter for parameter in space.parameters if not parameter.condition]
    combinations = [[f"{each.option}={each.text}" for each in always]]
    by_name = {parameter.name: parameter for parameter in space.parameters}
    for parameter in space.parameters:
        if parameter.condition:
            needed = _needed(parameter, by_name)
            first = {each.name: each.first() for each in always}
            others = [f"{by_name[name].option}={value}" for name, value in {**first, **needed}.items()]
            combinations.append([*others, f"{parameter.option}={parameter.text}"])
    return combinations


def _needed(parameter: Parameter, by_name: Mapping[str, Parameter]) -> dict[str, str]:
    """Return searched option -> value, of those without which a parameter is not part of a trial."""
    needed = {}
    for name, wanted in parameter.condition.items():
        if name in by_name:
            needed |= _needed(by_name[name], by_name)
            needed[name] = str(next(iter(wanted)))
    return needed
