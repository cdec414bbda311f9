"""Parameter groups and the learning rate's schedule."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

from lmft.errors import UserError, did_you_mean


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return trained weights in two groups: matrices, and vectors (biases, norms) without decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def names_of_weights(model: nn.Module, optimizer: Optimizer) -> list[str]:
    """Return the names of an optimizer's weights, in the order in which its state numbers them."""
    names = {weight: name for name, weight in model.named_parameters()}
    return [names[weight] for group in optimizer.param_groups for weight in group["params"]]


MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def check_arguments(make: MakeOptimizer) -> None:
    """Raise UserError if the optimizer refuses its arguments; there need be no model yet."""
    target = getattr(make, "func", make)
    try:
        make([{"params": [nn.Parameter(torch.zeros(1))]}])
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
    """The options of `scheduler`, a schedule of transformers; steps below 1 are shares of all."""

    name: str = "linear"
    warmup: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def num_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of optimizer steps of warm-up."""
        return _steps(self.warmup, num_training_steps)

    def specific(self, num_training_steps: int) -> dict[str, Any]:
        """Return the arguments that only this schedule takes, with shares converted to steps."""
        arguments = {}
        for name, value in self.options.items():
            if name.startswith("num_") and name.endswith("_steps"):
                value = _steps(value, num_training_steps)
            arguments[name] = value
        return arguments


def make_schedule(config: ScheduleConfig, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
    """Return the learning rate's schedule, to be stepped after each optimizer step."""
    return get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=config.num_warmup_steps(num_training_steps),
        num_training_steps=num_training_steps,
        scheduler_specific_kwargs=config.specific(num_training_steps),
    )


def check_schedule(config: ScheduleConfig) -> None:
    """Raise UserError if transformers refuses the schedule's options; there need be no model yet."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    try:
        make_schedule(config, optimizer, num_training_steps=100)
    except (TypeError, ValueError) as error:
        what = f"scheduler.name={config.name}: {error}"
        fix = "scheduler.options.NAME=VALUE, with transformers' names"
        raise UserError(what, "scheduler.options", fix) from error


def _steps(count: float, num_training_steps: int) -> int:
    return int(count) if count >= 1 else round(count * num_training_steps)
