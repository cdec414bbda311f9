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
    """Trainable weights in two groups: matrices decay as the optimizer says; biases and norms (vectors) do
    not.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


MakeOptimizer = Callable[[list[dict[str, Any]]], Optimizer]


def check_arguments(make: MakeOptimizer) -> None:
    """Raises UserError where the optimizer would refuse its arguments, before there are weights to give it."""
    target = getattr(make, "func", make)
    try:
        make([{"params": [nn.Parameter(torch.zeros(1))]}])
    except TypeError as error:
        argument = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        hint = did_you_mean(argument[1], inspect.signature(target).parameters) if argument else ""
        what = f"{target.__name__} takes no '{argument[1]}'{hint}" if argument else str(error)
        raise UserError(what, "optimizer", "`--cfg job` shows every option") from error
    except ValueError as error:
        raise UserError(str(error), "optimizer") from error


@dataclass(frozen=True)
class ScheduleConfig:
    """A scheduler's YAML: a schedule of transformers.get_scheduler. Counts below 1 are shares of all steps."""

    name: str = "linear"
    warmup: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def num_warmup_steps(self, num_training_steps: int) -> int:
        """Optimizer steps of warm-up."""
        return _steps(self.warmup, num_training_steps)

    def specific(self, num_training_steps: int) -> dict[str, Any]:
        """The schedule's own arguments, with shares turned into steps."""
        return {
            name: _steps(value, num_training_steps)
            if name.startswith("num_") and name.endswith("_steps")
            else value
            for name, value in self.options.items()
        }


def make_schedule(config: ScheduleConfig, optimizer: Optimizer, num_training_steps: int) -> LRScheduler:
    """The learning rate's schedule, to be stepped with the optimizer."""
    return get_scheduler(
        config.name,
        optimizer,
        num_warmup_steps=config.num_warmup_steps(num_training_steps),
        num_training_steps=num_training_steps,
        scheduler_specific_kwargs=config.specific(num_training_steps),
    )


def check_schedule(config: ScheduleConfig) -> None:
    """Raises UserError where transformers would refuse the schedule's options, before there is an optimizer."""
    try:
        make_schedule(config, torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), num_training_steps=100)
    except (TypeError, ValueError) as error:
        what = f"scheduler.name={config.name}: {error}"
        raise UserError(
            what, "scheduler.options", "scheduler.options.NAME=VALUE, as transformers has it"
        ) from error


def _steps(count: float, num_training_steps: int) -> int:
    return int(count) if count >= 1 else round(count * num_training_steps)
