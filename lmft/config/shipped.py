"""The YAML files that come with lmft: where they are, and the defaults that they state."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def config_dir() -> Path:
    """Return the folder of the shipped YAMLs: in the package in a wheel, next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next(folder for folder in (package / "conf", package.parent / "conf") if folder.is_dir())


def defaults_of(key: str) -> dict[str, Any]:
    """Return the default of each option of a group that has a `_base.yaml`; {} for other groups.

    Args:
        key: the group's key in the config: `data`, `model`, `model.tokenizer`.
    """
    group, *path = key.split(".")
    file = config_dir() / group / "_base.yaml"
    if not file.is_file():
        return {}
    # Parsed once, as that takes 50 ms; resolved each time, as environment variables may change.
    node = OmegaConf.select(_parsed(file), ".".join(path)) if path else _parsed(file)
    if node is None:
        return {}
    defaults = OmegaConf.to_container(node, resolve=True)
    # `???` is OmegaConf's mark of an option that has no default.
    return {str(name): value for name, value in defaults.items() if value != "???"}  # type: ignore[union-attr]


@cache
def _parsed(file: Path) -> Any:
    return OmegaConf.load(file)


def choices_with(key: str) -> list[str]:
    """Return the choices whose YAMLs state an option: `optimizer=sgd` for `optimizer.momentum`."""
    choices = []
    for file in sorted(config_dir().glob("*/[!_]*.yaml")):
        group = file.parent.name
        content = _parsed(file)
        is_global = file.read_text(encoding="utf-8").startswith("# @package _global_")
        path = key if is_global else key.removeprefix(f"{group}.")
        if (is_global or path != key) and _has(content, path.split(".")):
            choices.append(f"{group}={file.stem}")
    return choices


def _has(content: Any, path: list[str]) -> bool:
    node = content
    for name in path:
        if not isinstance(node, DictConfig) or name not in node:
            return False
        node = node._get_node(name)  # the node itself: reading its value would resolve interpolations
    return True


def with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded config, completed by the defaults of options that are newer."""
    completed = dict(config)
    for group in {"data", "model"} & config.keys():
        completed[group] = _merged(defaults_of(group), config[group])
    return completed


def _merged(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **values}
    for name, value in values.items():
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping):
            merged[name] = _merged(defaults[name], value)
    return merged
