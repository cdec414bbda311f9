"""The optimizer's arguments, its weights' names, and the learning rate's schedule."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lmft.errors import UserError, did_you_mean
from lmft.system import sharding
from lmft.training.groups import IN_LAYERS


def names_of_weights(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of an optimizer's weights, in the order in which its state numbers them."""
    names = {weight: name for name, weight in model.named_parameters()}
    return [names[weight] for group in optimizer.param_groups for weight in group["params"]]


def load_states_exactly(optimizer: Optimizer) -> None:
    """Make an optimizer load its state in the number format in which it was saved.

    torch rounds it to that of the weights: with weights in bfloat16, moments in float32 would be other
    ones after resuming. Where devices share the weights, each one takes its part of a whole state.
    """
    loaded: list[dict[str, Any]] = []

    def prepare(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        loaded.append(sharding.parts_of_state(state_dict, weights))
        return loaded[-1]

    optimizer.register_load_state_dict_pre_hook(prepare)

    def restore(optimizer: Optimizer) -> None:
        saved = loaded.pop()
        for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            for weight, number in zip(group["params"], saved_group["params"], strict=True):
                if number in saved["state"]:  # a weight without a gradient so far has no state
                    _restore_formats(optimizer.state[weight], saved["state"][number])

    optimizer.register_load_state_dict_post_hook(restore)


def _restore_formats(state: dict[str, Any], saved: Mapping[str, Any]) -> None:
    for name, value in saved.items():
        if isinstance(value, torch.Tensor) and state[name].dtype != value.dtype:
            state[name] = value.to(state[name].device, copy=True)


MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def check_arguments(make: MakeOptimizer, groups: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if the optimizer refuses its arguments; there need be no model yet.

    groups: {part of the model: options of its weights}.
    """
    target = getattr(make, "func", make)
    kinds = [{}]
    if getattr(target, "splits_layers", False):
        kinds = [{IN_LAYERS: True}, {IN_LAYERS: False}]
    try:
        optimizer = make([{"params": [nn.Parameter(torch.zeros(1, 1))], **kind} for kind in kinds])
        known = {name for group in optimizer.param_groups for name in group} - {"params", IN_LAYERS}
        for part, options in groups.items():
            for name in options:
                if name not in known:
                    what = f"{target.__name__} reads no '{name}' of a group{did_you_mean(name, known)}"
                    fix = f"one of: {', '.join(sorted(known))}"
                    raise UserError(what, f"optimizer.groups.{part}", fix)
    except TypeError as error:
        what = str(error)
        if match := re.search(r"unexpected keyword argument '(\w+)'", what):
            hint = did_you_mean(match[1], inspect.signature(target).parameters)
            what = f"{target.__name__} takes no '{match[1]}'{hint}"
        raise UserError(what, "optimizer", "`--cfg job` shows every option") from error
    except ValueError as error:
        given = getattr(make, "keywords", {})
        named = [
            f"optimizer.{name}={value}" for name, value in given.items() if str(value) in str(error)
        ]
        raise UserError(str(error), ", ".join(named) or "optimizer") from error


@dataclass(frozen=True)
class ScheduleConfig:
    """The options of `scheduler`, a schedule of transformers; steps below 1 are shares of all.

    `min_lr` is the share of the optimizer's rate to which the schedule falls after its warm-up; None:
    it falls to zero.
    """

    name: str = "linear"
    warmup: float = 0.0
    min_lr: float | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def num_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of optimizer steps of warm-up."""
        return _steps(self.warmup, num_training_steps)

    def specific(self, num_training_steps: int) -> dict[str, Any]:
        """Return the arguments that only this schedule takes, with shares converted to steps."""
        arguments = {}
        for name, value in self.options.items():
            if name == "num_decay_steps":
                value = self._num_decay_steps(value, num_training_steps)
            elif name.startswith("num_") and name.endswith("_steps"):
                value = _steps(value, num_training_steps)
            arguments[name] = value
        return arguments

    def _num_decay_steps(self, count: float | None, num_training_steps: int) -> int:
        """Return the number of optimizer steps of the decay; None: all that follow the warm-up.

        Raises: UserError if warm-up and decay do not fit into the training.
        """
        num_left = num_training_steps - self.num_warmup_steps(num_training_steps)
        if count is None:
            return max(0, num_left)
        num_steps = _steps(count, num_training_steps)
        are_shares = self.warmup < 1 and count < 1
        if num_steps > num_left and not (are_shares and self.warmup + count <= 1):  # else by rounding
            what = (
                f"a warm-up of {self.num_warmup_steps(num_training_steps)} steps and a decay of "
                f"{num_steps} are longer than the training, {num_training_steps} steps"
            )
            fix = "shares of all steps: scheduler.warmup=0.06 scheduler.options.num_decay_steps=0.1"
            raise UserError(what, "scheduler.warmup, scheduler.options.num_decay_steps", fix)
        return min(num_steps, num_left)


def make_schedule(config: ScheduleConfig, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
    """Return the learning rate's schedule, to be stepped after each optimizer step.

    Raises: UserError.
    """
    # Imported here: it loads peft, and what peft loads, which commands that train nothing do not need.
    from transformers import get_scheduler

    num_warmup_steps = config.num_warmup_steps(num_training_steps)
    schedule: Any = get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=num_warmup_steps,
        num_training_steps=num_training_steps,
        scheduler_specific_kwargs=config.specific(num_training_steps),
    )
    if config.min_lr:
        factors = schedule.lr_lambdas
        # The first step's rate is set already: it is of the warm-up, or the full one.
        schedule.lr_lambdas = [_with_minimum(each, config.min_lr, num_warmup_steps) for each in factors]
    return schedule


def _with_minimum(
    factor: Callable[[int], float], minimum: float, num_warmup_steps: int
) -> Callable[[int], float]:
    """Return a schedule's factor, falling to `minimum` instead of to zero after the warm-up."""

    def raised(step: int) -> float:
        value = factor(step)
        return value if step < num_warmup_steps else minimum + (1 - minimum) * value

    return raised


def check_schedule(config: ScheduleConfig, num_training_steps: int = 1_000_000_000) -> None:
    """Raise UserError if the schedule's options are refused, or do not fit into so many steps.

    There need be no model yet.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        make_schedule(config, optimizer, num_training_steps)
    except (TypeError, ValueError) as error:
        what = f"scheduler.name={config.name}: {error}"
        fix = "scheduler.options.NAME=VALUE, with transformers' names"
        raise UserError(what, "scheduler.options", fix) from error


def _steps(count: float, num_training_steps: int) -> int:
    return int(count) if count >= 1 else round(count * num_training_steps)
