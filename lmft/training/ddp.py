"""Options of torch's DistributedDataParallel that depend on the model."""

from collections.abc import Callable

from lightning.pytorch.strategies import DDPStrategy
from torch import nn


def complete_options(
    strategy: DDPStrategy, module: nn.Module, may_leave_weights_out: Callable[[], bool]
) -> None:
    """Set the options of DDP that the config leaves open.

    `gradient_as_bucket_view` saves a copy of the gradients. `find_unused_parameters` is needed if a step
    may leave weights without a gradient; it costs a search of the graph in each step. Buffers are sent
    from the first process to the others before each forward pass, unless all are constants.

    Args:
        strategy: the strategy, before it wraps the model.
        module: the model.
        may_leave_weights_out: tells whether a step may leave weights without a gradient.
    """
    options = strategy._ddp_kwargs
    options.setdefault("gradient_as_bucket_view", True)
    if "find_unused_parameters" not in options:
        options["find_unused_parameters"] = may_leave_weights_out()
    if "broadcast_buffers" not in options:
        options["broadcast_buffers"] = _has_saved_buffers(module)


def _has_saved_buffers(module: nn.Module) -> bool:
    """Return whether buffers are part of the model's state; others follow from its config."""
    names = {name for name, _ in module.named_buffers()}
    return not names.isdisjoint(module.state_dict())
