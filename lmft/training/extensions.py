"""Make the classes that a config adds to Lightning's Trainer.

Mistakes in their options are reported before the first step.
"""

import inspect
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from lightning import Callback, Trainer
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.plugins import LayerSync, Precision
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.nn.parallel import DistributedDataParallel

from lmft.config.trust import trusted_class, trusted_instance
from lmft.errors import UserError, did_you_mean
from lmft.training.fully_sharded import FullySharded

T = TypeVar("T")
PROFILE = "profile.txt"

_REFUSED_PLUGINS = {
    CheckpointIO: "leave it out: checkpoints are written atomically, with a checksum",
    Precision: "trainer.precision=bf16-mixed",
    LayerSync: "leave it out: these models have no batch norm whose statistics devices could share",
}


@contextmanager
def lightnings_refusals_are_user_errors() -> Iterator[None]:
    """Turn Lightning's errors about options and missing packages into UserErrors.

    Any error that arises in one of Lightning's own callbacks becomes a UserError too.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        callback = _lightnings_callback(error)
        if callback is not None:
            what = f"{type(callback).__name__} failed: {one_line(error)}"
            raise UserError(what, "callbacks", "other options of it, or callbacks=none") from error
        if isinstance(error, MisconfigurationException | ModuleNotFoundError):
            raise UserError(one_line(error), "trainer") from error
        raise


def _lightnings_callback(error: BaseException) -> Callback | None:
    """Return the callback of Lightning in which an error arose; None if it arose elsewhere."""
    callers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    callbacks = [caller for caller in callers if isinstance(caller, Callback) and _is_lightnings(caller)]
    return callbacks[-1] if callbacks else None


def _is_lightnings(callback: Callback) -> bool:
    return type(callback).__module__.startswith("lightning.")


def make_plugin(
    node: Mapping[str, Any], kind: type[T], trusted: Sequence[str], where: str, **further: Any
) -> T:
    """Return the object of a node's `_target_`.

    Args:
        node: `_target_` and its arguments.
        kind: the class that the object must be an instance of.
        trusted: packages that may be instantiated (`trust.targets`).
        where: the node's key in the config, for messages.
        further: arguments that the config does not have.

    Raises: UserError if the class is of another kind or refuses its arguments.
    """
    target = target_class(node, kind, trusted, where)
    try:
        instance = trusted_instance(node, trusted, where, **further)
    except InstantiationException as error:
        raise refusal(error.__cause__ or error, where, target) from error
    if not isinstance(instance, kind):  # possible if the target is a function
        raise UserError(f"{node['_target_']} makes no {kind.__name__}", f"{where}._target_")
    return instance


def target_class(node: Mapping[str, Any], kind: type, trusted: Sequence[str], where: str) -> Any:
    """Return the class or function that a node names. Raises: UserError if it is a class of another
    kind.
    """
    target = trusted_class(node, trusted, where)
    if isinstance(target, type) and not issubclass(target, kind):
        raise UserError(f"{node['_target_']} is not a {kind.__name__}", f"{where}._target_")
    return target


def check_kind(target: Any, refused: Mapping[type, str], where: str) -> None:
    """Raise UserError if a class is derived from one that does not work here."""
    for kind, fix in refused.items():
        if isinstance(target, type) and issubclass(target, kind):
            raise UserError(f"{target.__name__} does not work in lmft", where, fix)


def cluster_plugins(nodes: Any, trusted: Sequence[str]) -> list[ClusterEnvironment]:
    """Return the plugins of `trainer.plugins`, which say on what cluster this process runs.

    Args:
        nodes: one node or a list of them; None: none.
        trusted: packages that may be instantiated (`trust.targets`).

    Raises: UserError for other plugins, as lmft sets these itself.
    """
    found = []
    if not isinstance(nodes, list):
        nodes = [nodes] if nodes else []
    for i, node in enumerate(nodes):
        where = f"trainer.plugins[{i}]"
        if not isinstance(node, Mapping) or "_target_" not in node:
            example = "lightning.pytorch.plugins.environments.SLURMEnvironment, auto_requeue: false"
            what = f"{where}={node} names no class"
            raise UserError(what, fix=f"trainer.plugins=[{{_target_: {example}}}]")
        check_kind(trusted_class(node, trusted, where), _REFUSED_PLUGINS, where)
        found.append(make_plugin(node, ClusterEnvironment, trusted, where))
    return found


def check_strategy(trainer: Trainer, option: Any) -> None:
    """Raise UserError unless the strategy is a single device, or DDP with arguments that it takes.

    Other strategies shard the weights, which are exported whole, or start processes that report nothing
    back.

    Args:
        trainer: the Trainer.
        option: `trainer.strategy` of the config, for messages.
    """
    is_supported = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy | FullySharded)
    if not is_supported or isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        name = option["_target_"] if isinstance(option, Mapping) else option
        raise UserError(
            f"trainer.strategy={name} does not work in lmft", fix="trainer.strategy=ddp, or auto"
        )
    if isinstance(trainer.strategy, DDPStrategy):
        try:
            inspect.signature(DistributedDataParallel).bind_partial(**trainer.strategy._ddp_kwargs)
        except TypeError as error:
            raise refusal(error, "trainer.strategy", DistributedDataParallel) from error


def check_nodes(trainer: Trainer) -> None:
    """Raise UserError if this process would wait for others that it does not know."""
    environment = trainer.strategy.cluster_environment if trainer.num_nodes > 1 else None  # pyright: ignore[reportAttributeAccessIssue]
    is_told = "MASTER_ADDR" in os.environ and {"NODE_RANK", "GROUP_RANK"} & os.environ.keys()
    if isinstance(environment, LightningEnvironment) and not is_told:
        what = f"trainer.num_nodes={trainer.num_nodes}, but this is not part of a cluster's job"
        fix = "srun or torchrun; or set MASTER_ADDR, MASTER_PORT and NODE_RANK on each machine"
        raise UserError(what, fix=fix)


def show_profile(trainer: Any, folder: Path | None) -> None:
    """Print the profiler's summary, and write it to `profile.txt`; Lightning would only log it.

    Args:
        trainer: the Trainer.
        folder: the run's folder, if there is one; the summary is then that of training, else of
            validation.
    """
    profiler: Profiler = trainer.profiler  # pyright: ignore[reportAttributeAccessIssue]
    summarize = profiler.summary
    stage = "validate" if folder is None else "fit"

    def print_summary() -> str:
        text = summarize()
        if text and trainer.state.fn == stage and trainer.is_global_zero:
            print(text)
            if folder is not None:
                (folder / PROFILE).write_text(text, encoding="utf-8")
        return text

    profiler.summary = print_summary


def refusal(error: BaseException, where: str, target: Any) -> UserError:
    """Return the UserError for an error about arguments, of the target or of a class inside its node."""
    if isinstance(error, KeyError):
        return UserError(f"{error.args[0]} is not set", where)
    match = re.search(r"(?:(\w+)\.__init__\(\) )?got an unexpected keyword argument '(\w+)'", str(error))
    if match is None:
        return UserError(one_line(error), where)
    name = match[1] or target.__name__
    argument = match[2]
    hint = ""
    if name == target.__name__:
        hint = did_you_mean(argument, inspect.signature(target).parameters)
    return UserError(f"{name} takes no '{argument}'{hint}", where, "`--cfg job` shows every option")


def one_line(error: BaseException) -> str:
    """Return an error's message in one line, or its type's name."""
    return " ".join(str(error).split()) or type(error).__name__
