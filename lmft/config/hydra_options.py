"""Hydra's own options: those that would move a run's files or copy its secrets are refused."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lmft.config.shipped import config_dir
from lmft.errors import UserError

_RUN = "run.dir=FOLDER run.name=NAME"
_BY_VALUES = "a job's folder is named by the values that differ between jobs"
_BY_HYDRA = "Hydra sets it itself; leave it out"
# Option, or group of options -> what to use instead.
_INSTEAD = {
    "hydra.run.dir": _RUN,
    "hydra.sweep.dir": _RUN,
    "hydra.sweep.subdir": f"{_RUN}; {_BY_VALUES}",
    "hydra.output_subdir": "leave it out; config.yaml in the run's folder has no secrets",
    "hydra.job.chdir": "paths begin where the command is typed; the run's folder is run.dir/run.name",
    "hydra.job.name": "run.name=NAME",
    "hydra.job.config.override_dirname": _BY_VALUES,
    **{f"hydra.job.{name}": _BY_HYDRA for name in ("num", "id", "override_dirname", "config_name")},
    "hydra.runtime": _BY_HYDRA,
    "hydra.overrides": _BY_HYDRA,
}
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
# Lightning adds it to the command of each process that it starts for a further device.
_OF_FURTHER_DEVICE = re.compile(r"hydra\.job\.name=train_ddp_process_\d+")


def check_override(override: Override) -> None:
    """Check an argument of the command line. Raises: UserError for an option that lmft sets."""
    if "LOCAL_RANK" in os.environ and _OF_FURTHER_DEVICE.fullmatch(str(override.input_line)):
        return
    value = None if override.is_delete() else override.value()
    for key, leaf in _leaves(override.key_or_group, value):
        _check_value(key, leaf, override.input_line)
        _check_typed(key, leaf, override)


def _check_typed(key: str, value: Any, override: Override) -> None:
    """Raise UserError for a value that Hydra would stumble over, or warn of and ignore."""
    where = override.input_line
    listed = value if isinstance(value, list) else []
    if key == "hydra.job.env_copy":
        for name in listed:
            if name not in os.environ:
                raise UserError(f"there is no environment variable {name}", where)
    elif key == "hydra.searchpath":
        for folder in listed:
            _check_folder(str(folder), where)
    elif key == "hydra.verbose" and not isinstance(value, bool | str | list):
        raise UserError("hydra.verbose takes true, or the names of loggers", where, "[lmft]")
    elif f"{key}.".startswith("hydra.sweeper.params."):
        what = "hydra.sweeper.params is for YAMLs; on the command line, write the values directly"
        raise UserError(what, where, "--multirun seed=1,2")
    elif key.startswith("hydra.callbacks."):
        _check_callback(key, value)


def _check_folder(path: str, where: str | None) -> None:
    scheme, has_scheme, folder = path.partition("://")
    if (not has_scheme or scheme == "file") and not Path(folder if has_scheme else path).is_dir():
        raise UserError("no such folder of YAML files", where, "hydra.searchpath=[file://FOLDER]")


def _check_callback(key: str, value: Any) -> None:
    if key.endswith("._target_") and str(value).endswith(".PickleJobInfoCallback"):
        fix = "leave it out; --from RUN trains with a run's config again"
        raise UserError(f"{value} writes the config with its secrets", key, fix)


def check_composed(config: DictConfig) -> None:
    """Check what the chosen YAMLs set. Raises: UserError for an option that lmft sets."""
    hydra_node = OmegaConf.to_container(config.hydra, resolve=False)
    where = "a YAML of the config"
    for key, value in _leaves("hydra", hydra_node):
        if key in _own_values():
            _check_value(key, value, where)
        if ".handlers." in key and key.endswith(".filename"):
            raise UserError(f"{key} writes a second log", where, "train.log is in the run's folder")
        _check_callback(key, value)
    for source in config.hydra.runtime.config_sources:
        if source.schema == "file":
            _check_folder(source.path, source.provider)


def _check_value(key: str, value: Any, where: str | None) -> None:
    option = next((name for name in _INSTEAD if f"{key}.".startswith(f"{name}.")), None)
    own = _own_values()
    if option is None or (key in own and own[key] == value):
        return
    fix = _INSTEAD[option]
    if key in _FOLDERS and value is not None and "${" not in str(value):
        folder = Path(str(value))
        fix = f"run.dir={folder.parent} run.name={folder.name}"
    raise UserError(f"{key} cannot be set: lmft names folders and files itself", where, fix)


@cache
def _own_values() -> dict[str, Any]:
    """Return the values that conf/hydra/lmft.yaml gives to the options that are refused."""
    shipped = OmegaConf.to_container(OmegaConf.load(config_dir() / "hydra" / "lmft.yaml"), resolve=False)
    assert isinstance(shipped, dict)
    values = dict(_leaves("hydra", shipped["hydra"]))
    return {key: values[key] for key in _INSTEAD if key in values}


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (key with dots, value) for each value inside nested dicts."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(f"{key}.{name}", item)
    else:
        yield key, value
