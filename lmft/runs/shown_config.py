"""Show the options of a run's config that differ from the defaults."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from lmft.config import hydra_config
from lmft.config.grammar import assignment
from lmft.config.load import Job
from lmft.config.shipped import config_dir
from lmft.config.sources import SHIPPED, Sources
from lmft.runs.redaction import Redactor
from lmft.runs.rerun import differences
from lmft.system.files import read_yaml

_BUNDLES = ("experiment", "debug")  # YAMLs of options of other groups, which are shown one by one


def differing_arguments(
    choices: Mapping[str, str | None], settings: Mapping[str, Any], arguments: Sequence[str] | None
) -> list[str]:
    """Return the arguments that lead from lmft's defaults to a config.

    >>> job = compose_job(["model=gpt2_tiny", "data.batch_size=16", "seed=1"], "train")
    >>> differing_arguments(job.choices, job.config, job.arguments)
    ['model=gpt2_tiny', 'objective=causal', 'data.batch_size=16']

    Args:
        choices: group -> name of its YAML, or None; empty if they are not known.
        settings: the config, without secrets.
        arguments: the command line, which may name further folders of YAMLs; None: Python code.

    Returns: the choices of YAMLs, then the values that differ from theirs.
    """
    sources = _sources(arguments)
    usual = _usual_choices()
    chosen = {
        group: name
        for group, name in choices.items()
        if group in usual and name is not None and group not in _BUNDLES
    }
    base = hydra_config.resolved(
        _composed(tuple(f"{group}={name}" for group, name in chosen.items()), sources)
    )
    known = {name: value for name, value in settings.items() if name in base}
    values = [
        str(each.input_line).lstrip("+") for each in differences(base, known, "") if not each.is_delete()
    ]
    names = [
        assignment(group, name)
        for group, name in choices.items()
        if name is not None and name != usual.get(group, "none")
    ]
    return [*names, *values]


def print_if_verbose(job: Job, config: Mapping[str, Any]) -> None:
    """Print the whole config that a command uses, without its secrets, if `--verbose` asks for it."""
    if job.is_verbose:
        from lmft.reporting.opening_lines import print_whole_config

        print_whole_config(Redactor(config).value(dict(config)))


@functools.cache
def _composed(choices: tuple[str, ...], sources: Sources) -> DictConfig:
    """Return what YAMLs state. Kept, as composing takes a third of a second.

    Not resolved: environment variables may change.
    """
    return hydra_config.composed(choices, "train", sources)


def _sources(arguments: Sequence[str] | None) -> Sources:
    if arguments is None:
        return SHIPPED
    flags = get_args_parser().parse_intermixed_args(list(arguments))
    return Sources(flags.config_name, flags.config_path, flags.config_dir)


def _usual_choices() -> dict[str, str | None]:
    """Return the YAMLs that a training is composed of unless others are chosen."""
    defaults = read_yaml(config_dir() / "train.yaml")["defaults"]
    return {
        group: name for entry in defaults if isinstance(entry, dict) for group, name in entry.items()
    }
