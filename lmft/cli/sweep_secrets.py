"""Keep secrets of the command line out of what Hydra and launchers write for a sweep.

Hydra writes a sweep's arguments into multirun.yaml, and submitit into the file of each job. So a secret
value is passed in an environment variable, and the argument refers to it: `key=${lmft.secret:1}`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lmft.config.grammar import parse
from lmft.runs.redaction import Redactor

_PREFIX = "LMFT_SECRET_"
_REFERENCE = re.compile(r"\$\{lmft\.secret:(\d+)\}")


def has_secret(override: Override) -> bool:
    """Return whether the value of an override, or one of its values, is a secret."""
    argument = override.input_line or ""
    return "=" in argument and Redactor({}).argument(argument) != argument


def split(overrides: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return overrides with references to their secrets, and the environment variables with these."""
    environment: dict[str, str] = {}

    def reference(value: str) -> str:
        if "${" in value or value == "null":
            return value
        number = len(environment) + 1
        environment[_variable(number)] = value
        return f"${{lmft.secret:{number}}}"

    changed = []
    for argument in overrides:
        override = parse(argument)
        if not has_secret(override):
            changed.append(argument)
            continue
        key = override.get_key_element()
        if override.is_discrete_sweep():
            values = list(override.sweep_string_iterator())
        else:
            values = [argument.partition("=")[2]]
        changed.append(f"{key}={','.join(map(reference, values))}")
    return changed, environment


@contextmanager
def in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables in the block."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def secrets_in_environment() -> dict[str, str]:
    """Return the variables that `in_environment` has set."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}


def revealed(argument: str) -> str:
    """Return an argument with its secrets in place of the references."""
    return _REFERENCE.sub(lambda match: os.environ[_variable(int(match[1]))], argument)


def _variable(number: int) -> str:
    return f"{_PREFIX}{number}"


def _secret(number: int) -> Any:
    return parse(f"secret={os.environ[_variable(number)]}").value()


OmegaConf.register_new_resolver("lmft.secret", _secret, replace=True)
