"""Make the callbacks of a config: `callbacks.NAME`. Those that could not work are refused."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)

from lmft.config.quantities import DURATION, duration
from lmft.config.trust import trusted_class
from lmft.errors import UserError
from lmft.training.callbacks.averaging import AveragedWeights
from lmft.training.callbacks.lightnings import ResumablePruning, ResumableSWA
from lmft.training.callbacks.time_limit import TimeLimit
from lmft.training.extensions import check_kind, make_plugin, target_class
from lmft.training.monitors import arguments_of, check_monitors

_REFUSED = {
    LearningRateFinder: "`lmft tune` finds a learning rate",
    BatchSizeFinder: "`lmft tune` finds the largest micro-batch at the same examples per step",
    GradientAccumulationScheduler: "trainer.accumulate_grad_batches=4, the same in each epoch",
    BasePredictionWriter: "leave it out: lmft.predict shows the answers to prompts",
    # Weights that are unfrozen during training would have no schedule.
    BaseFinetuning: "model.freeze=[embeddings,layers.0-7] trains the upper layers alone",
    # It would average position numbers and frozen weights, and begin with the weights before training.
    WeightAveraging: "callbacks=ema, or callbacks=weight_average; or derive yours from AveragedWeights",
    ProgressBar: "leave it out: lmft itself shows steps, losses and the time left",
    # It reads the loss that training_step returns, which is that of a part of a step.
    SpikeDetection: "callbacks=spike watches the loss of whole optimizer steps",
    # It would count the time of earlier starts, and its end could not be resumed from exactly.
    Timer: "trainer.max_time=DD:HH:MM:SS; or derive yours from TimeLimit",
}
_RIGHT_ONES = (AveragedWeights, TimeLimit)
"""lmft's own classes derived from those."""
_REPLACED: dict[Any, type[Callback]] = {
    ModelPruning: ResumablePruning,
    StochasticWeightAveraging: ResumableSWA,
    Timer: TimeLimit,
}
"""Lightning's classes, and those that take their place, with the same arguments."""
_HOOKS = tuple(
    name
    for name in dir(Callback)
    if name in ("setup", "teardown") or re.match("on_(?!test_|predict_)", name)
)
"""What training and validation call."""


def callbacks_of(config: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks of a config. Raises: UserError."""
    trusted = config["trust"]["targets"]
    callbacks_by_key = {
        f"callbacks.{name}": _callback(node, trusted, f"callbacks.{name}", config.get("trainer", {}))
        for name, node in config["callbacks"].items()
        if node is not None
    }
    check_monitors(config, callbacks_by_key)
    return list(callbacks_by_key.values())


def _callback(
    node: Mapping[str, Any], trusted: Sequence[str], where: str, trainer: Mapping[str, Any]
) -> Callback:
    """Return a node's callback. Raises: UserError if it could not work, or would do nothing."""
    target = target_class(node, Callback, trusted, where)
    if target in _REPLACED:
        target = _REPLACED[target]
        name = f"{target.__module__}.{target.__qualname__}"
        trusted = [*trusted, name]
        node = {**node, "_target_": name}
    _check_kind(target, where)
    further: dict[str, Any] = {}
    if isinstance(target, type) and issubclass(target, ModelCheckpoint):
        further = _durations(node, "train_time_interval", where)
    if isinstance(target, type) and issubclass(target, Timer):
        further = _durations(node, "duration", where)
    if isinstance(target, type) and issubclass(target, EarlyStopping):
        further = _when_to_check(node, trainer)
    callback = make_plugin(node, Callback, trusted, where, **further)
    _check_kind(type(callback), where)  # the node may name a function
    _check_hooks(callback, where)
    if isinstance(callback, TimeLimit):
        callback.option = f"{where}.duration"
        if callback.time_remaining() is None:
            raise UserError(f"{where} limits nothing", fix=f"+{where}.duration=DD:HH:MM:SS")
    return callback


def check_averaging(config: Mapping[str, Any], num_steps: int, num_batches: int) -> None:
    """Raise UserError if Lightning's SWA would never average, or never use its average.

    It averages after epochs, and gives the model the average at the end of the last of
    `trainer.max_epochs`.

    Args:
        config: the config.
        num_steps: optimizer steps of the whole training.
        num_batches: micro-batches per epoch and device.
    """
    trusted = config["trust"]["targets"]
    most = config["trainer"]["max_epochs"]
    steps_per_epoch = -(-num_batches // config["trainer"]["accumulate_grad_batches"])
    num_epochs = -(-num_steps // steps_per_epoch)
    for name, node in config["callbacks"].items():
        where = f"callbacks.{name}"
        if node is None:
            continue
        target = trusted_class(node, trusted, where)
        if not isinstance(target, type) or not issubclass(target, StochasticWeightAveraging):
            continue
        start = arguments_of(node, trusted, where)["swa_epoch_start"]
        what = None
        if most in (None, -1) and isinstance(start, float):
            what = f"{where}.swa_epoch_start={start} is a share of trainer.max_epochs, which is not set"
        elif most not in (None, -1) and num_epochs < most:
            what = f"{where} averages up to epoch {most}; training ends in epoch {num_epochs}"
        elif isinstance(start, int) and start > num_epochs:
            what = f"{where}.swa_epoch_start={start}: training ends in epoch {num_epochs}"
        if what is not None:
            fix = "callbacks=weight_average, which counts steps; or trainer.max_epochs without max_steps"
            raise UserError(what, fix=fix)


def _durations(node: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return the duration of that name in a node, if there is one. Raises: UserError if it is none."""
    if node.get(name) is None:
        return {}
    value = duration(node[name])
    if value is None:
        raise UserError(f"{where}.{name}={node[name]} must be {DURATION}")
    return {name: value}


def _when_to_check(node: Mapping[str, Any], trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return that EarlyStopping checks at each validation if each micro-batch has one.

    Lightning takes an interval of 1 micro-batch for 1.0 epochs, and would check once an epoch.
    """
    interval = trainer.get("val_check_interval")
    is_given = node.get("check_on_train_epoch_end") is not None
    if is_given or not isinstance(interval, int) or interval != 1:
        return {}
    return {"check_on_train_epoch_end": False}


def _check_kind(target: Any, where: str) -> None:
    if not isinstance(target, type) or not issubclass(target, _RIGHT_ONES):
        check_kind(target, _REFUSED, where)


def _check_hooks(callback: Callback, where: str) -> None:
    """Raise UserError if nothing in a training would call anything of a callback."""
    own = {name: value for name, value in vars(callback).items() if name in _HOOKS}
    for name, value in own.items():
        if not callable(value):
            fix = "callbacks.NAME._target_=my_package.MyCallback, a class with this method"
            raise UserError(f"{where}.{name}={value} is not a function", fix=fix)
    is_own = (getattr(type(callback), name) is not getattr(Callback, name) for name in _HOOKS)
    if not own and not any(is_own):
        what = f"{type(callback).__name__} does nothing in a training"
        raise UserError(what, where, "a class that defines hooks such as on_train_batch_end")
