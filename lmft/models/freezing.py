"""Weights that stay as they are: a model's parts, by name."""

import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from torch import Tensor, nn
from transformers import PreTrainedModel

from lmft.errors import UserError, did_you_mean

_LAYERS = re.compile(r"(?:(encoder|decoder)\.)?layers(?:\.(\d+)(?:-(\d+))?)?")


def freeze(model: PreTrainedModel, parts: Sequence[str]) -> int:
    """Takes these parts out of training; returns how many weights they hold. Raises UserError.

    embeddings: what the body has around its layers, but for the norms beside them: embeddings of tokens,
    positions and token types with their norms and projections, ALBERT's and OPT's among them, DeBERTa's
    relative positions too. layers, layers.2, layers.0-3: blocks of the body, counted from 0, the last one
    included. An encoder-decoder has encoder.layers and decoder.layers; `layers` alone means both. Blocks are
    counted as they are stored: ALBERT's layers share one, layers.0.
    head: what turns hidden states into logits, as far as it has weights of its own. Anything else is how
    names of weights begin: transformer.h.0, model.norm.

    A tied weight has one value: with the embeddings, a head that is tied to them is frozen too.
    """
    frozen = {weight for part in parts for weight in _weights_of(model, part)}
    if not any(weight.requires_grad and weight not in frozen for weight in model.parameters()):
        raise UserError(
            f"model.freeze=[{', '.join(parts)}] leaves nothing to train", fix="freeze fewer parts"
        )
    for weight in frozen:
        weight.requires_grad_(False)
    return sum(weight.numel() for weight in frozen)


def keep_trained(state_dict: dict[str, Tensor], model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """The state without the model's frozen weights, under none of the names that a tied one has; buffers
    stay.

    prefix: what the names in `state_dict` begin with, where the model is a part of something larger
    (`model.`).
    """
    named = model.named_parameters(remove_duplicate=False)
    frozen = {prefix + name for name, weight in named if not weight.requires_grad}
    return {name: value for name, value in state_dict.items() if name not in frozen}


def layer_stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """The body's layers: {"layers": …}, or {"encoder.layers": …, "decoder.layers": …} of an encoder-decoder.

    A side's stack is the largest of its lists of modules that lie in no other list.
    """
    if not model.config.is_encoder_decoder:
        return {"layers": _largest_list(model.base_model)}
    sides = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
    return {f"{side}.layers": _largest_list(part) for side, part in sides.items()}


def _weights_of(model: PreTrainedModel, part: str) -> set[nn.Parameter]:
    if part == "embeddings":
        return _embeddings(model)
    if part == "head":
        return _head(model) or _refuse(
            f"the head of {model.config.model_type} is tied to its embeddings", "embeddings"
        )
    stacks, match = layer_stacks(model), _LAYERS.fullmatch(part)
    chosen = [name for name in stacks if match and (match[1] is None or name.startswith(match[1]))]
    if match and chosen:
        return {weight for name in chosen for weight in _layers(model, name, stacks[name], match)}
    named = model.named_parameters(remove_duplicate=False)
    return {weight for name, weight in named if f"{name}.".startswith(f"{part}.")} or _refuse_unknown(
        model, part
    )


def _layers(
    model: PreTrainedModel, name: str, stack: nn.ModuleList, match: re.Match[str]
) -> set[nn.Parameter]:
    first, last = int(match[2] or 0), int(match[3] or match[2] or len(stack) - 1)
    if not first <= last < len(stack):
        wanted = f"{name}.{first}-{last}" if match[3] else f"{name}.{first}"
        shared = (
            " (all layers share it)"
            if name == "layers" and len(stack) < model.config.num_hidden_layers
            else ""
        )
        there = f"{name}.0-{len(stack) - 1}" if len(stack) > 1 else f"{name}.0"
        _refuse(f"model.freeze: {model.config.model_type} has {there}{shared}, not {wanted}", there)
    return {weight for layer in stack[first : last + 1] for weight in layer.parameters()}


def _embeddings(model: PreTrainedModel) -> set[nn.Parameter]:
    stacks = list(layer_stacks(model).values())
    within = {weight for stack in stacks for weight in stack.parameters()}
    return (
        set(model.base_model.parameters()) - _head(model) - within - _norms_beside(model.base_model, stacks)
    )


def _head(model: PreTrainedModel) -> set[nn.Parameter]:
    """T5's body is the whole model, so its output projection has to be named apart."""
    body, output = model.base_model, model.get_output_embeddings()
    outside = set(model.parameters()) - set(body.parameters())
    return (outside | set(output.parameters() if output else ())) - set(
        model.get_input_embeddings().parameters()
    )


def _norms_beside(body: nn.Module, stacks: list[nn.ModuleList]) -> set[nn.Parameter]:
    """Weights of norms that are neighbours of a stack and not named after the embeddings: the final norms."""
    parents = [module for module in body.modules() if any(child in stacks for child in module.children())]
    return {
        weight
        for parent in parents
        for name, child in parent.named_children()
        if "norm" in type(child).__name__.lower() and "emb" not in name
        for weight in child.parameters()
    }


def _outer_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outer_lists(child)


def _largest_list(module: nn.Module) -> nn.ModuleList:
    def num_weights(stack: nn.ModuleList) -> int:
        return sum(weight.numel() for weight in stack.parameters())

    return max(_outer_lists(module), key=num_weights, default=nn.ModuleList())


def _refuse(what: str, instead: str) -> NoReturn:
    raise UserError(what, fix=f"model.freeze=[{instead}]")


def _refuse_unknown(model: PreTrainedModel, part: str) -> NoReturn:
    stacks = layer_stacks(model)
    names = ["embeddings", *(["head"] if _head(model) else []), *dict.fromkeys(["layers", *stacks])]
    prefixes = {
        name[: dot.start()] for name, _ in model.named_parameters() for dot in re.finditer(r"\.", name)
    }
    raise UserError(
        f"model.freeze: {model.config.model_type} has no part '{part}'{did_you_mean(part, [*names, *prefixes])}",
        fix=f"{', '.join(names)}, some layers ({next(iter(stacks))}.0-1), or how weights' names begin",
    )
