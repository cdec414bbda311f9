"""Check which classes a config names: a YAML may come from anyone, the command line is trusted.

Hydra calls a `_target_` with the arguments in its node, so `_target_: builtins.open` in a downloaded
YAML would suffice to overwrite a file. Allowed are lmft's objectives, PyTorch's optimizers, Lightning's
trainer with its callbacks, loggers and plugins, and the names that the command line adds by
`trust.targets=[…]`: exact names, or `package.*`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lmft.errors import UserError

T = TypeVar("T")
_PACKAGES = (
    *("lmft.objectives.*", "lmft.training.callbacks.averaging.*", "lmft.training.callbacks.spike.*"),
    *("lmft.training.callbacks.learnt.*", "lmft.training.muon.*", "lmft.training.trackio_logger.*"),
    "lmft.training.fully_sharded.*",
    "lightning.*",
    *("torch.optim.*", "transformers.optimization.*", "optimi.*", "bitsandbytes.optim.*"),
)
_HYDRAS_NODES = ("launcher", "sweeper", "callbacks", "job_logging", "hydra_logging")
_HYDRAS_CLASSES = re.compile(
    r"hydra\._internal\.core_plugins\.\w+\.\w+|hydra_plugins\.\w+\.\w+\.[A-Z]\w*"
    r"|hydra\.experimental\.callbacks\.[A-Z]\w*"
    r"|optuna\.(samplers|pruners)\.[A-Z]\w*|(logging|colorlog)\.[A-Z]\w*"
)


COMMAND_LINE_ALONE = ("trust.targets", "model.trust_remote_code", "model.module")


def check_hydras(config: DictConfig) -> None:
    """Refuse classes other than Hydra's own in its launcher, sweeper, callbacks and logging.

    Args:
        config: as composed of YAML files, without any value from the command line.

    Raises: UserError.
    """
    for name in _HYDRAS_NODES:
        node = _resolved(OmegaConf.select(config, f"hydra.{name}"))
        _check_resolved(node, f"hydra.{name}")
        for key, target in _called(node, f"hydra.{name}", ("_target_", "()", "class")):
            if not _HYDRAS_CLASSES.fullmatch(target):
                fix = "only Hydra's own plugins and loggers are allowed there"
                raise UserError(f"{target} is not trusted", key, fix)


def check(config: Mapping[str, Any], command_line: Iterable[str]) -> None:
    """Refuse each `_target_` outside trusted packages, and options that a YAML must not set.

    Args:
        config: plain.
        command_line: its arguments.

    Raises: UserError.
    """
    typed_keys = {argument.lstrip("+").partition("=")[0] for argument in command_line}
    trusted = config.get("trust", {}).get("targets")
    remote_code = config.get("model", {}).get("trust_remote_code")
    module = config.get("model", {}).get("module")
    options = {"trust.targets": trusted, "model.trust_remote_code": remote_code, "model.module": module}
    for key, value in options.items():
        if not value or key in typed_keys:
            continue
        if key == "model.module" and value in (trusted or ()):
            continue
        fix = f"add {key}=… to the command line, if you know what that runs"
        raise UserError(f"{key} counts only on the command line", "it is set in a YAML", fix)
    if isinstance(trusted, str):
        raise UserError(
            "trust.targets is a list", f"trust.targets={trusted}", f"trust.targets=[{trusted}]"
        )
    _check_names(config, "", trusted or ())


def trusted_instance(node: Mapping[str, Any], trusted: Sequence[str], where: str, **further: Any) -> Any:
    """Make an instance of a node's `_target_`, after each `_target_` in the node has been checked.

    A name alone is not enough (`torch.optim.sgd.torch.load` is `torch.load`): it must resolve to a class
    of a trusted package and of a kind that lmft uses.

    Args:
        node: plain, with `_target_`, perhaps with others inside its arguments.
        trusted: names that the command line adds.
        where: the node's key in the config.
        further: arguments that are objects already.

    Raises: UserError for a class that is not trusted or does not exist; else what
    `hydra.utils.instantiate` raises.
    """
    from hydra.utils import instantiate

    _check_all(node, trusted, where)
    return instantiate(node, _convert_="all", **further)


def trusted_class(node: Mapping[str, Any], trusted: Sequence[str], where: str) -> Any:
    """Return the class of a node's `_target_`, checked as by `trusted_instance`. Raises: UserError."""
    _check_all(node, trusted, where)
    return _located(str(node["_target_"]), where)


def _check_all(node: Any, trusted: Sequence[str], where: str) -> None:
    _check_resolved(node, where)
    for key, target in _check_names(node, where, trusted):
        located = _located(target, key)
        if target not in trusted and not _is_trusted(located, trusted):
            raise _refusal(target, key)


def subclass_of(parent: type[T], name: str, where: str) -> type[T]:
    """Return the class of a full name (`my_package.MyModule`) that the command line names or trusts.

    Raises: UserError if it does not exist, or is not derived from `parent`.
    """
    located = _located(name, where)
    if not isinstance(located, type) or not issubclass(located, parent):
        what = f"{name} is not a subclass of {parent.__name__}"
        raise UserError(what, f"{where}={name}", f"class Mine({parent.__module__}.{parent.__name__}): …")
    return located


def _check_names(node: Any, where: str, trusted: Sequence[str]) -> list[tuple[str, str]]:
    targets = list(_called(node, where, ("_target_",)))
    for key, target in targets:
        if not any(_matches(target, name) for name in (*_PACKAGES, *trusted)):
            raise _refusal(target, key)
    return targets


def _check_resolved(node: Any, where: str) -> None:
    """Raise UserError for an interpolation that is left: Hydra would resolve it to an unchecked node."""
    if isinstance(node, str) and "${" in node:
        raise UserError(
            f"an interpolation that gives an interpolation: {node}", where, "write its value"
        )
    for key, item in _items(node, where):
        _check_resolved(item, key)


def _located(target: str, where: str) -> Any:
    # As in instantiate; hydra.utils.get_class would log errors.
    from hydra._internal.utils import _locate

    try:
        return _locate(target)
    except (ImportError, ValueError) as error:
        raise UserError(f"_target_: there is no {target}", where) from error


def _is_trusted(located: Any, trusted: Sequence[str]) -> bool:
    """Return whether an object is from a package that the user trusts, or is a class that lmft uses."""
    home = f"{getattr(located, '__module__', None)}.{getattr(located, '__qualname__', None)}"
    if any(_matches(home, name) for name in trusted):
        return True
    if not isinstance(located, type) or not any(_matches(home, name) for name in _PACKAGES):
        return False

    from lmft.objectives.base import Objective

    return issubclass(located, Objective) or issubclass(located, _kinds())


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
    """Yield (key, name) for each name in a node under one of these words (`_target_`)."""
    if isinstance(node, Mapping):
        yield from ((where, str(node[word])) for word in words if word in node)
    for key, item in _items(node, where):
        yield from _called(item, key, words)


def _items(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, list | tuple):
        node = dict(enumerate(node))
    if isinstance(node, Mapping):
        yield from ((f"{where}.{key}".lstrip("."), item) for key, item in node.items())


def _resolved(node: Any) -> Any:
    """Return a node as plain data, with None for values not known yet, such as a run's folder."""
    if isinstance(node, DictConfig):
        return {key: _resolved(_value(node, key)) for key in node}
    if OmegaConf.is_config(node):
        return [_resolved(_value(node, i)) for i in range(len(node))]
    return node


def _value(node: Any, key: Any) -> Any:
    try:
        return node[key]
    except OmegaConfBaseException:
        return None


def _refusal(target: str, where: str) -> UserError:
    fix = f"trust.targets=[{target}] on the command line (not in a YAML), if you know what it does"
    return UserError(f"_target_: {target} is not trusted", where, fix)
