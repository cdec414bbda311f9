"""What Hydra, OmegaConf and YAML raise for a user's mistake, said as a `UserError`."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager

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

from lmft.errors import UserError, did_you_mean


@contextmanager
def config_errors_are_user_errors() -> Iterator[None]:
    """Turns what composing and resolving a config raises inside into a `UserError`."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise _as_user_error(error) from error


@contextmanager
def target_errors_are_user_errors() -> Iterator[None]:
    """Turns what instantiating a `_target_` raises for an argument that it does not take into a `UserError`."""
    try:
        yield
    except InstantiationException as error:
        found = re.search(r"call to target '([\w.]+)'", str(error))
        cause = error.__cause__
        argument = re.search(r"unexpected keyword argument '(\w+)'", str(cause))
        if (
            found
            and cause
            and (isinstance(cause, ValueError) or type(cause).__name__ == "MisconfigurationException")
        ):
            raise UserError(_first_line(cause), where=found[1]) from error
        if not found or not argument:
            raise
        known = inspect.signature(get_method(found[1])).parameters
        what = f"{found[1].rpartition('.')[2]} takes no '{argument[1]}'{did_you_mean(argument[1], known)}"
        raise UserError(what, fix="`--cfg job` shows every option") from error


def _as_user_error(error: Exception) -> UserError:
    causes = list(_chain(error))
    ours = next((cause for cause in causes if isinstance(cause, UserError)), None)  # raised by a resolver
    return ours or next((said for said in map(_said, causes) if said), None) or _by_message(causes)


def _said(error: BaseException) -> UserError | None:
    """The errors that Hydra's and OmegaConf's types tell apart."""
    match error:
        case MissingConfigException():
            return _no_such_config(error)
        case OverrideParseException():
            fix = "write key=value, and a value with special characters in quotes: \"key='a (b)'\""
            return UserError("an argument that cannot be read", error.override, fix)
        case SearchPathException():
            return UserError(_first_line(error), fix="name a folder of YAML files")
        case MissingMandatoryValue():
            return UserError(f"'{error.full_key}' is needed", fix=f"add {error.full_key}=…")
        case MarkedYAMLError(problem_mark=mark) if mark:
            return UserError(
                f"not valid YAML: {error.problem or error.context}", f"{mark.name}, line {mark.line + 1}"
            )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _no_such_config(error: MissingConfigException) -> UserError:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return UserError(f"no config named '{name}'", fix="leave --config-name out")
    options = sorted(error.options or [])
    what = f"no {group} named '{name}'{did_you_mean(name, options)}"
    return UserError(what, f"{group}={name}", f"one of: {', '.join(options)}" if options else None)


def _by_message(causes: list[BaseException]) -> UserError:
    """The deepest cause says what is wrong, the first one often where."""
    lines = [_first_line(cause) for cause in causes]
    where = next(
        (cause.full_key for cause in causes if isinstance(cause, OmegaConfBaseException) and cause.full_key),
        None,
    )
    return UserError(lines[-1], where or (lines[0] if lines[0] != lines[-1] else None))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
