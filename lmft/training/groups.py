"""Groups of weights that an optimizer treats alike: without decay, by layer, and by name."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from lmft.errors import UserError
from lmft.models.freezing import embedding_weights, layer_stacks, weights_of

IN_LAYERS = "in_layers"
"""The option of a group by which an optimizer of two algorithms knows which one: true or false."""


@dataclass(frozen=True)
class Grouping:
    """The groups of an optimizer's weights.

    Args:
        lr: the learning rate of `optimizer`.
        layer_decay: factor of the rate from each layer to the one below it, so that lower layers, which
            are more general, change less (Howard and Ruder 2018; Clark et al. 2020). Output head and
            final norms have the whole rate, the top layer that times the factor, and the embeddings the
            smallest. None: one rate.
        groups: {part of the model or pattern of names: options of the optimizer for these weights}; a
            later one counts more.
        splits_layers: whether the optimizer has one algorithm for matrices inside the layers, and
            another for the rest.
    """

    lr: float | None = None
    layer_decay: float | None = None
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    splits_layers: bool = False


def parameter_groups(model: nn.Module, grouping: Grouping | None = None) -> list[dict[str, Any]]:
    """Return the trained weights in groups of the same options; vectors (biases, norms) do not decay.

    Raises: UserError if a part names no weight, or nothing of what is asked for it holds.
    """
    grouping = grouping or Grouping()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    # Matrices first.
    trained.sort(key=lambda weight: weight.ndim < 2)
    options: dict[nn.Parameter, dict[str, Any]] = {weight: {} for weight in trained}
    for weight in trained:
        if weight.ndim < 2:
            options[weight]["weight_decay"] = 0.0
    for weight, is_matrix in _matrices_in_layers(model, grouping):
        options[weight][IN_LAYERS] = is_matrix
    for weight, factor in _factors(model, grouping):
        options[weight]["lr"] = grouping.lr * factor  # pyright: ignore[reportOptionalOperand]
    _set_by_name(model, grouping.groups, options)
    groups: dict[str, dict[str, Any]] = {}
    for weight, own in options.items():
        group = groups.setdefault(repr(sorted(own.items())), {"params": [], **own})
        group["params"].append(weight)
    return list(groups.values())


def _matrices_in_layers(model: Any, grouping: Grouping) -> Iterator[tuple[nn.Parameter, bool]]:
    """Yield for each trained weight whether it is a matrix inside the layers."""
    if not grouping.splits_layers:
        return
    in_layers = {weight for stack in layer_stacks(model).values() for weight in stack.parameters()}
    tables = {
        weight
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters()
    }
    for weight in model.parameters():
        if weight.requires_grad:
            yield weight, weight in in_layers and weight not in tables and weight.ndim == 2


def _factors(model: Any, grouping: Grouping) -> Iterator[tuple[nn.Parameter, float]]:
    """Yield the factor of each trained weight's rate. Raises: UserError if the model has no layers."""
    if grouping.layer_decay is None:
        return
    if grouping.lr is None:
        raise UserError("optimizer.layer_decay needs a rate to lower", fix="optimizer.lr=1e-4")
    stacks = layer_stacks(model)
    if not any(map(len, stacks.values())):
        what = f"optimizer.layer_decay: {model.config.model_type} has no stack of layers"
        raise UserError(what, fix="optimizer.groups={PART: {lr: 1e-5}}")
    num_layers = max(map(len, stacks.values()))
    below: dict[nn.Parameter, int] = dict.fromkeys(embedding_weights(model), num_layers + 1)
    for stack in stacks.values():
        for number, layer in enumerate(stack):
            below |= dict.fromkeys(layer.parameters(), len(stack) - number)
    for weight in model.parameters():
        if weight.requires_grad:
            yield weight, grouping.layer_decay ** below.get(weight, 0)


def _set_by_name(
    model: Any,
    groups: Mapping[str, Mapping[str, Any]],
    options: Mapping[nn.Parameter, dict[str, Any]],
) -> None:
    """Set the options that `groups` names. Raises: UserError if some of them would change nothing."""
    source: dict[tuple[nn.Parameter, str], str] = {}
    for part, given in groups.items():
        chosen = [weight for weight in _named(model, part) if weight in options]
        if not chosen:
            what = f"optimizer.groups: all weights of '{part}' are frozen"
            raise UserError(what, "model.freeze", "leave it out")
        for weight in chosen:
            options[weight].update(given)
            source.update({(weight, name): part for name in given})
    for part, given in groups.items():
        for name in given:
            if part not in {by for (_, option), by in source.items() if option == name}:
                what = f"{name} of '{part}' has no effect: later groups have all its weights"
                fix = "put the smaller part last, or leave this one out"
                raise UserError(what, "optimizer.groups", fix)


def _named(model: Any, part: str) -> set[nn.Parameter]:
    """Return the weights of a part, as `model.freeze` names it, or whose names fit a pattern with *."""
    if not any(sign in part for sign in "*?["):
        return weights_of(model, part, "optimizer.groups")
    named = model.named_parameters(remove_duplicate=False)
    weights = {weight for name, weight in named if fnmatch.fnmatchcase(name, part)}
    if not weights:
        names = [name for name, _ in model.named_parameters()]
        what = f"optimizer.groups: no weight's name fits '{part}'"
        raise UserError(what, fix=f"names are {names[0]}, …, {names[-1]}")
    return weights
