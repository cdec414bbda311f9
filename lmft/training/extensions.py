"""What a config plugs into Lightning's Trainer: callbacks, loggers, a profiler. Mistakes in it are said
early.
"""

import inspect
import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import InstantiationException
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import Profiler
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch.nn.parallel import DistributedDataParallel

from lmft.config.trust import trusted_class, trusted_instance
from lmft.errors import UserError, did_you_mean
from lmft.training.scores import MONITORED
from lmft.training.validations import Monitor

T = TypeVar("T")
PROFILE = "profile.txt"

_REFUSED = {
    LearningRateFinder: "--multirun optimizer.lr=1e-5,3e-5,1e-4 tries learning rates, with a table at the end",
    BatchSizeFinder: "data.batch_size=64; a micro-batch that is too large is computed in parts",
    GradientAccumulationScheduler: "trainer.accumulate_grad_batches=4, the same in each epoch",
    BasePredictionWriter: "leave it out: lmft.predict shows the answers to prompts",
    BackboneFinetuning: "model.freeze=[embeddings,layers.0-7] trains the upper layers alone",
}
# Where a logger is told the folder for its files, and what its record is called.
_FOLDER: dict[Any, str] = {TensorBoardLogger: "save_dir", CSVLogger: "save_dir", WandbLogger: "save_dir"}
_NAME: dict[Any, str] = {WandbLogger: "name", MLFlowLogger: "run_name"}


@contextmanager
def lightnings_refusals_are_user_errors() -> Iterator[None]:
    """Turns what Lightning says of options that do not fit, or of a package that is missing, into a
    `UserError`.

    So it does with any error that one of Lightning's own callbacks runs into.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        callback = _lightnings_callback(error)
        if callback is not None:
            what = f"{type(callback).__name__} cannot go on: {_one_line(error)}"
            raise UserError(what, "callbacks", "other options of it, or callbacks=none") from error
        if isinstance(error, MisconfigurationException | ModuleNotFoundError):
            raise UserError(_one_line(error), "trainer") from error
        raise


def _lightnings_callback(error: BaseException) -> Callback | None:
    """The callback of Lightning's in which an error arose, if it was in one."""
    callers = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [each for each in callers if isinstance(each, Callback) and _is_lightnings(each)]
    return found[-1] if found else None


def _is_lightnings(callback: Callback) -> bool:
    return type(callback).__module__.startswith("lightning.")


def make_plugin(
    node: Mapping[str, Any], kind: type[T], trusted: Sequence[str], where: str, **further: Any
) -> T:
    """The object of a node's `_target_`.

    kind: what it has to be; where: the node's key in the config. Raises: UserError, whatever its class finds
    wrong.
    """
    target = _target(node, kind, trusted, where)
    try:
        instance = trusted_instance(node, trusted, where, **further)
    except InstantiationException as error:
        raise _refusal(error.__cause__ or error, where, target) from error
    if not isinstance(instance, kind):  # what a function has made
        raise UserError(f"{node['_target_']} makes no {kind.__name__}", f"{where}._target_")
    return instance


def _target(node: Mapping[str, Any], kind: type, trusted: Sequence[str], where: str) -> Any:
    """The class, or function, that a node names. Raises UserError for a class of another kind."""
    target = trusted_class(node, trusted, where)
    if isinstance(target, type) and not issubclass(target, kind):
        raise UserError(f"{node['_target_']} is no {kind.__name__}", f"{where}._target_")
    return target


def callbacks(config: Mapping[str, Any]) -> list[Callback]:
    """The callbacks of a config. Raises: UserError."""
    trusted = config["trust"]["targets"]
    found = {
        f"callbacks.{name}": make_plugin(node, Callback, trusted, f"callbacks.{name}")
        for name, node in config["callbacks"].items()
        if node is not None
    }
    for where, callback in found.items():
        for refused, fix in _REFUSED.items():
            if isinstance(callback, refused):
                raise UserError(f"{type(callback).__name__} does not work in lmft", where, fix)
    _check_monitors(found)
    return list(found.values())


def _check_monitors(found: Mapping[str, Callback]) -> None:
    """Refuses what no validation measures. A callback that is not Lightning's may log anything, which is
    looked for when it is needed.
    """
    if not all(map(_is_lightnings, found.values())):
        return
    for where, callback in found.items():
        monitor = getattr(callback, "monitor", None)
        known = (*MONITORED, "epoch", "step") if isinstance(callback, ModelCheckpoint) else MONITORED
        if monitor is not None and monitor not in known:
            what = f"{where}.monitor={monitor}: unknown{did_you_mean(str(monitor), known)}"
            raise UserError(what, fix=f"one of: {', '.join(known)}")


def monitors(config: Mapping[str, Any]) -> list[Monitor]:
    """Which of the config's callbacks need a validation."""
    return [
        Monitor(f"callbacks.{name}.monitor={node['monitor']}", bool(node.get("check_on_train_epoch_end")))
        for name, node in config["callbacks"].items()
        if node is not None and node.get("monitor") in MONITORED
    ]


def check_loggers(config: Mapping[str, Any]) -> None:
    """Finds a class that is none, or takes other arguments, in the loggers of a config; makes none. Raises:
    UserError.

    To make one may write files already, which would be left behind by a run that is refused.
    """
    for where, node in _loggers(config):
        target = _target(node, Logger, config["trust"]["targets"], where)
        try:
            given = {name: value for name, value in node.items() if not name.startswith("_")}
            of_the_run = {option: None for option in (_FOLDER.get(target), _NAME.get(target)) if option}
            inspect.signature(target).bind(*node.get("_args_", ()), **{**of_the_run, **given})
        except TypeError as error:
            raise _refusal(error, where, target) from error


def add_loggers(trainer: Trainer, config: Mapping[str, Any], folder: Path, run_name: str) -> None:
    """Makes the loggers of a config and starts them, so that one that cannot start is known before the first
    step.

    folder, run_name: of the run, for what the config leaves to it. Raises: UserError; of what loggers had
    written to the folder nothing is left then.
    """
    trusted, before = config["trust"]["targets"], set(folder.glob("*"))
    # Those that write files alone come last: they leave nothing behind where another one cannot start.
    for where, node in sorted(_loggers(config), key=lambda logger: _writes_files_alone(logger[1])):
        target = _target(node, Logger, trusted, where)
        of_the_run = {_FOLDER.get(target): str(folder), _NAME.get(target): run_name}
        left_to_it = {name: value for name, value in of_the_run.items() if name and node.get(name) is None}
        try:
            with _nobody_to_ask():
                logger = make_plugin({**node, **left_to_it}, Logger, trusted, where)
                if hasattr(type(logger), "experiment"):
                    _ = logger.experiment  # pyright: ignore[reportAttributeAccessIssue]  # begins the record
        except Exception as error:
            if trainer.is_global_zero:
                _remove(set(folder.glob("*")) - before)
            if isinstance(error, UserError):
                raise
            fix = "log in or set its key, or see that its server is there; logger=none trains without"
            raise UserError(f"{where} cannot start: {_one_line(error)}", where, fix) from error
        trainer.loggers = [*trainer.loggers, logger]


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _loggers(config: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(f"logger.{name}", node) for name, node in config["logger"].items() if node is not None]


def _writes_files_alone(node: Mapping[str, Any]) -> bool:
    return str(node["_target_"]).endswith((f".{TensorBoardLogger.__name__}", f".{CSVLogger.__name__}"))


@contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """Inside, what asks for a key finds no terminal, and an error takes the place of the question."""
    terminal = sys.stdin
    with Path(os.devnull).open() as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = terminal


def check_strategy(trainer: Trainer, asked: Any) -> None:
    """Raises UserError unless it is one device, or DDP with arguments that it takes.

    Others part the weights, which are exported whole, or start processes of which this one learns nothing.
    asked: `trainer.strategy` of the config.
    """
    is_known = isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy)
    if not is_known or isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        name = asked["_target_"] if isinstance(asked, Mapping) else asked
        raise UserError(f"trainer.strategy={name} does not work in lmft", fix="trainer.strategy=ddp, or auto")
    if isinstance(trainer.strategy, DDPStrategy):
        try:
            inspect.signature(DistributedDataParallel).bind_partial(**trainer.strategy._ddp_kwargs)
        except TypeError as error:
            raise _refusal(error, "trainer.strategy", DistributedDataParallel) from error


def show_profile(trainer: Any, folder: Path | None) -> None:
    """Has what the profiler finds printed, and written to `profile.txt` of a run's folder; Lightning only
    logs it.

    Of the training where there is a run, else of the validation.
    """
    profiler: Profiler = trainer.profiler  # pyright: ignore[reportAttributeAccessIssue]
    summary, stage = profiler.summary, "validate" if folder is None else "fit"

    def shown() -> str:
        text = summary()
        if text and trainer.state.fn == stage and trainer.is_global_zero:
            print(text)
            if folder is not None:
                (folder / PROFILE).write_text(text, encoding="utf-8")
        return text

    profiler.summary = shown


def _refusal(error: BaseException, where: str, target: Any) -> UserError:
    """What a class says of its arguments: the node's own, or one that is named inside the node."""
    found = re.search(r"(?:(\w+)\.__init__\(\) )?got an unexpected keyword argument '(\w+)'", str(error))
    if found is None:
        return UserError(_one_line(error), where)
    name, argument = found[1] or target.__name__, found[2]
    hint = did_you_mean(argument, inspect.signature(target).parameters) if name == target.__name__ else ""
    return UserError(f"{name} takes no '{argument}'{hint}", where, "`--cfg job` shows every option")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
