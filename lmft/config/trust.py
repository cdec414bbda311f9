"""Which classes a config may name, and by whose word: a YAML file may be anybody's, the command line is the
user's.

A `_target_` is called with the arguments beside it, so `_target_: builtins.open` in somebody's YAML would be
enough to overwrite a file. Allowed are this project's objectives, PyTorch's optimizers, Lightning's trainer
and what is plugged into it, and what the command line adds by `trust.targets=[…]`: exact names, or
`package.*`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmft.errors import UserError

T = TypeVar("T")
_PACKAGES = ("lmft.objectives.*", "torch.optim.*", "lightning.*")
_HYDRAS_NODES = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging")
_HYDRAS_CLASSES = re.compile(
    r"hydra\._internal\.core_plugins\.\w+\.\w+|hydra_plugins\.\w+\.\w+\.[A-Z]\w*|hydra\.experimental\.callbacks\.[A-Z]\w*"
    r"|optuna\.(samplers|pruners)\.[A-Z]\w*|(logging|colorlog)\.[A-Z]\w*"
)


def check_hydras(config: DictConfig) -> None:
    """Refuses what Hydra's own node could run: launcher, sweeper, callbacks and logging, which Hydra makes by
    itself.

    Args:
        config: as composed of YAML files, with no single value from the command line yet.

    Raises: UserError.
    """
    for name in _HYDRAS_NODES:
        node = _resolved(OmegaConf.select(config, f"hydra.{name}"))
        _check_resolved(node, f"hydra.{name}")
        for key, target in _called(node, f"hydra.{name}", ("_target_", "()", "class")):
            if not _HYDRAS_CLASSES.fullmatch(target):
                raise UserError(
                    f"{target} is not trusted", key, "only Hydra's own plugins and loggers can stand there"
                )


def check(config: Mapping[str, Any], command_line: Iterable[str]) -> None:
    """Refuses each `_target_` that begins with no trusted package, loading none; and what only the user may
    say.

    Args:
        config: plain.
        command_line: its arguments.

    Raises: UserError.
    """
    said = {argument.lstrip("+").partition("=")[0] for argument in command_line}
    trusted = config.get("trust", {}).get("targets")
    remote_code = config.get("model", {}).get("trust_remote_code")
    module = config.get("model", {}).get("module")
    named = {"trust.targets": trusted, "model.trust_remote_code": remote_code, "model.module": module}
    for key, value in named.items():
        if value and key not in said and not (key == "model.module" and value in (trusted or ())):
            fix = f"add {key}=… to the command line, if you know what that runs"
            raise UserError(f"{key} counts only on the command line", "a YAML file says it", fix)
    if isinstance(trusted, str):
        raise UserError("trust.targets is a list", f"trust.targets={trusted}", f"trust.targets=[{trusted}]")
    _check_names(config, "", trusted or ())


def trusted_instance(node: Mapping[str, Any], trusted: Sequence[str], where: str, **further: Any) -> Any:
    """Makes what a node's `_target_` names, after each `_target_` in it has been checked.

    A name says little about where it leads (`torch.optim.sgd.torch.load` is `torch.load`), so what counts is
    what it
    resolves to: a class that is of a trusted package and of a kind that is plugged in here.

    Args:
        node: plain, with `_target_`, perhaps with others inside its arguments.
        trusted: names that the command line adds.
        where: the node's key in the config.
        further: arguments that are objects already.

    Raises: UserError for what is not trusted or not there; else what `hydra.utils.instantiate` raises.
    """
    from hydra.utils import instantiate

    _check_all(node, trusted, where)
    return instantiate(node, _convert_="all", **further)


def trusted_class(node: Mapping[str, Any], trusted: Sequence[str], where: str) -> Any:
    """What a node's `_target_` names, after the same checks; nothing is made. Raises: UserError."""
    _check_all(node, trusted, where)
    return _located(str(node["_target_"]), where)


def _check_all(node: Any, trusted: Sequence[str], where: str) -> None:
    _check_resolved(node, where)
    for key, target in _check_names(node, where, trusted):
        found = _located(target, key)
        if target not in trusted and not _is_what_it_seems(found, trusted):
            raise _refusal(target, key)


def subclass_of(parent: type[T], name: str, where: str) -> type[T]:
    """The class of a full name (`my_package.MyModule`), which the command line has named or trusted.

    Raises: UserError if there is none, or if it is not derived from `parent`.
    """
    found = _located(name, where)
    if not isinstance(found, type) or not issubclass(found, parent):
        what = f"{name} is not a subclass of {parent.__name__}"
        raise UserError(what, f"{where}={name}", f"class Mine({parent.__module__}.{parent.__name__}): …")
    return found


def _check_names(node: Any, where: str, trusted: Sequence[str]) -> list[tuple[str, str]]:
    targets = list(_called(node, where, ("_target_",)))
    for key, target in targets:
        if not any(_matches(target, name) for name in (*_PACKAGES, *trusted)):
            raise _refusal(target, key)
    return targets


def _check_resolved(node: Any, where: str) -> None:
    """Hydra would resolve what is left of interpolations to nodes of which nothing has been checked."""
    if isinstance(node, str) and "${" in node:
        raise UserError(f"an interpolation that gives an interpolation: {node}", where, "write its value")
    for key, item in _items(node, where):
        _check_resolved(item, key)


def _located(target: str, where: str) -> Any:
    from hydra._internal.utils import _locate  # as instantiate does, but without a line of its own in the log

    try:
        return _locate(target)
    except (ImportError, ValueError) as error:
        raise UserError(f"_target_: there is no {target}", where) from error


def _is_what_it_seems(found: Any, trusted: Sequence[str]) -> bool:
    """Whether it is a class of one of our kinds and packages, or was written in a package that the user
    trusts.
    """
    home = f"{getattr(found, '__module__', None)}.{getattr(found, '__qualname__', None)}"
    if any(_matches(home, name) for name in trusted):
        return True
    if not isinstance(found, type) or not any(_matches(home, name) for name in _PACKAGES):
        return False

    from lmft.objectives.base import Objective

    return issubclass(found, Objective) or issubclass(found, _kinds())


def _kinds() -> tuple[type, ...]:
    from lightning import Callback, Trainer
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.plugins import CheckpointIO, LayerSync, Precision
    from lightning.pytorch.profilers import Profiler
    from lightning.pytorch.strategies import Strategy
    from torch.optim import Optimizer

    plugins = (CheckpointIO, ClusterEnvironment, LayerSync, Precision)
    return Optimizer, Trainer, Callback, Logger, Strategy, Accelerator, Profiler, *plugins


def _matches(target: str, name: str) -> bool:
    return target == name or (name.endswith(".*") and target.startswith(name[:-1]))


def _called(node: Any, where: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(key, name) of all that is called by name in a node: by one of these words."""
    if isinstance(node, Mapping):
        yield from ((where, str(node[word])) for word in words if word in node)
    for key, item in _items(node, where):
        yield from _called(item, key, words)


def _items(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    items = (
        node.items()
        if isinstance(node, Mapping)
        else enumerate(node)
        if isinstance(node, list | tuple)
        else ()
    )
    yield from ((f"{where}.{key}".lstrip("."), item) for key, item in items)


def _resolved(node: Any) -> Any:
    """Plain, with None for what is not known yet, such as a run's folder."""
    if not OmegaConf.is_config(node):
        return node
    keys = list(node) if isinstance(node, DictConfig) else range(len(node))
    values = {key: _resolved(_value(node, key)) for key in keys}
    return values if isinstance(node, DictConfig) else list(values.values())


def _value(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except OmegaConfBaseException:
        return None


def _refusal(target: str, where: str) -> UserError:
    fix = (
        f"trust.targets=[{target}] on the command line (a YAML file cannot say so), if you know what it does"
    )
    return UserError(f"_target_: {target} is not trusted", where, fix)
