"""The optimizer of a config, and how its weights are grouped."""

from typing import Any

from lmft.config.trust import trusted_instance
from lmft.training.groups import Grouping
from lmft.training.optimizer import MakeOptimizer, check_arguments

_OF_GROUPING = ("layer_decay", "groups")  # options of `optimizer` that lmft reads, not its class


def make_optimizer(config: dict[str, Any]) -> MakeOptimizer:
    """Return the function that makes the optimizer from groups of weights. Raises: UserError."""
    options = {name: value for name, value in config["optimizer"].items() if name not in _OF_GROUPING}
    make = trusted_instance(options, config["trust"]["targets"], "optimizer")
    check_arguments(make, config["optimizer"].get("groups") or {})
    return make


def grouping_of(config: dict[str, Any], make: MakeOptimizer) -> Grouping:
    """Return how the optimizer's weights are grouped."""
    options = config["optimizer"]
    return Grouping(
        lr=options.get("lr"),
        layer_decay=options.get("layer_decay"),
        groups=options.get("groups") or {},
        splits_layers=getattr(getattr(make, "func", make), "splits_layers", False),
    )
