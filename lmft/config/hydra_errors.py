"""Turn the errors of Hydra, OmegaConf and YAML for a user's mistake into a `UserError`."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import (
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from hydra.utils import get_method
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from lmft.config.extras import install_command
from lmft.errors import UserError, did_you_mean

# Hydra's launcher -> the extra of lmft that installs it.
_PACKAGES_OF_LAUNCHERS = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
    "ray": "hydra-ray-launcher",
}


@contextmanager
def config_errors_are_user_errors() -> Iterator[None]:
    """Turn errors of composing and resolving a config in the block into a `UserError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _as_user_error(error) from error


@contextmanager
def target_errors_are_user_errors() -> Iterator[None]:
    """Turn an error of a `_target_` in the block about its arguments into a `UserError`."""
    try:
        yield
    except InstantiationException as error:
        target = re.search(r"call to target '([\w.]+)'", str(error))
        if not target:
            raise
        name = target[1]
        cause = error.__cause__
        is_invalid_value = (
            isinstance(cause, ValueError) or type(cause).__name__ == "MisconfigurationException"
        )
        if cause and is_invalid_value:
            raise UserError(_first_line(cause), where=name) from error
        argument = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if not argument:
            raise
        known = inspect.signature(get_method(name)).parameters
        what = f"{name.rpartition('.')[2]} takes no '{argument[1]}'{did_you_mean(argument[1], known)}"
        raise UserError(what, fix="`--cfg job` shows every option") from error


def _as_user_error(error: Exception) -> UserError:
    causes = list(_chain(error))
    for cause in causes:
        if isinstance(cause, UserError):  # raised by a resolver
            return cause
    for cause in causes:
        user_error = _by_type(cause)
        if user_error:
            return user_error
    return _by_message(causes)


def _by_type(error: BaseException) -> UserError | None:
    """Return a UserError for the errors that have a type of their own; else None."""
    match error:
        case MissingConfigException():
            return _no_such_config(error)
        case OverrideParseException() if function := re.search(r"Unknown function '(\w+)'", str(error)):
            fix = "functions: choice range interval glob sort shuffle tag int float str bool"
            return UserError(f"there is no function {function[1]}", error.override, fix)
        case OverrideParseException():
            fix = "write key=value, and a value with special characters in quotes: \"key='a (b)'\""
            return UserError("an argument cannot be read", error.override, fix)
        case SearchPathException():
            return UserError(_first_line(error), fix="name a folder of YAML files")
        case MissingMandatoryValue():
            return UserError(f"'{error.full_key}' is needed", fix=f"add {error.full_key}=…")
        case MarkedYAMLError(problem_mark=mark) if mark:
            what = f"not valid YAML: {error.problem or error.context}"
            return UserError(what, f"{mark.name}, line {mark.line + 1}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def check_launcher_is_installed(name: str | None) -> None:
    """Raise UserError if Hydra's launcher of a name is not installed: a sweep would begin without it."""
    if name in _PACKAGES_OF_LAUNCHERS:
        Plugins.instance()  # which loads what is installed
        if f"{name}.yaml" not in ConfigStore.instance().repo["hydra"]["launcher"]:
            raise _not_installed(name)


def _not_installed(launcher: str) -> UserError:
    what = f"Hydra's launcher '{launcher}' is not installed"
    fix = install_command(_PACKAGES_OF_LAUNCHERS[launcher])
    return UserError(what, f"hydra/launcher={launcher}", fix)


def _no_such_config(error: MissingConfigException) -> UserError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        fix = "--config-name names a YAML in --config-dir or --config-path"
        return UserError(f"no config named '{name}'", fix=fix)
    if group == "hydra/launcher" and name in _PACKAGES_OF_LAUNCHERS:
        return _not_installed(name)
    # A name that begins with "_" is what other YAMLs start from.
    options = sorted(option for option in error.options or [] if not option.startswith("_"))
    if (group, name) == ("hydra/sweeper", "optuna"):
        return UserError(f"{group}={name} needs another package", fix="sweep=optuna is lmft's own")
    what = f"no {group} named '{name}'{did_you_mean(name, options)}"
    fix = f"one of: {', '.join(options)}" if options else None
    return UserError(what, f"{group}={name}", fix)


def _by_message(causes: list[BaseException]) -> UserError:
    """Return a UserError with the deepest cause's message, and the key or message of an outer one."""
    what = _first_line(causes[-1])
    if group := re.match(r"Multiple values for ([\w/@]+)\.", what):
        fix = f"{group[1]}=NAME replaces it, {group[1]}=[NAME,NAME] chooses several"
        return UserError(f"'{group[1]}' is chosen already", f"+{group[1]}=…", fix)
    if group := re.match(r"Could not override '([\w/@]+)'", what):
        fix = f"+{group[1]}=NAME adds it"
        return UserError(f"the config has no choice of '{group[1]}'", f"{group[1]}=…", fix)
    if variable := re.search(r"Environment variable '(\w+)' not found", what):
        what = f"there is no environment variable {variable[1]}"
    for cause in causes:
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return UserError(what, cause.full_key)
    outer = _first_line(causes[0])
    return UserError(what, outer if outer != what else None)


def _first_line(error: BaseException) -> str:
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()
    return type(error).__name__
