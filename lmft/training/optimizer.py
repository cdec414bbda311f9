"""Parameter groups and the learning rate's schedule."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from transformers import SchedulerType

from lmft.errors import UserError, did_you_mean


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Trainable weights in two groups: matrices decay as the optimizer says; biases and norms (vectors) do not."""
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

    def __post_init__(self):
        names = [kind.value for kind in SchedulerType]
        if self.name not in names:
            hint = did_you_mean(self.name, names)
            raise UserError(f"scheduler.name={self.name} is unknown{hint}", fix=f"one of: {', '.join(names)}")

    def num_warmup_steps(self, num_training_steps: int) -> int:
        """Optimizer steps of warm-up."""
        return _steps(self.warmup, num_training_steps)

    def specific(self, num_training_steps: int) -> dict[str, Any]:
        """The schedule's own arguments, with shares turned into steps."""
        return {
            name: _steps(value, num_training_steps) if name.startswith("num_") and name.endswith("_steps") else value
            for name, value in self.options.items()
        }


def _steps(count: float, num_training_steps: int) -> int:
    return int(count) if count >= 1 else round(count * num_training_steps)
