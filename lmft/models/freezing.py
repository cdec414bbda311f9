"""Freeze parts of a model, given by name."""

import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from torch import Tensor, nn
from transformers import PreTrainedModel

from lmft.errors import UserError, did_you_mean

_LAYERS = re.compile(r"(?:(encoder|decoder)\.)?layers(?:\.(\d+)(?:-(\d+))?)?")


def freeze(model: PreTrainedModel, parts: Sequence[str]) -> int:
    """Freeze these parts of the model; return how many elements their weights have.

    A tied weight has one value: a head that is tied to the embeddings is frozen with them.

    Args:
        model: the model.
        parts: each one of: `embeddings`: all of the body outside its layers, except final norms:
            embeddings of tokens,
                positions and token types, with their norms and projections (ALBERT, OPT), and DeBERTa's
                relative positions.
            `layers`, `layers.2`, `layers.0-3`: blocks of the body, counted from 0, the last one
            included. An
                encoder-decoder has `encoder.layers` and `decoder.layers`; `layers` means both. Blocks
                are
                counted as they are stored: ALBERT's layers share one, `layers.0`.
            `head`: what turns hidden states into logits, except weights that are tied to the embeddings.
                the beginning of parameters' names: `transformer.h.0`, `model.norm`.

    Raises: UserError if a part is unknown, or nothing is left to train.
    """
    frozen = {weight for part in parts for weight in weights_of(model, part, "model.freeze")}
    if not any(weight.requires_grad and weight not in frozen for weight in model.parameters()):
        raise UserError(
            f"model.freeze=[{', '.join(parts)}] leaves nothing to train", fix="freeze fewer parts"
        )
    for weight in frozen:
        weight.requires_grad_(False)
    return sum(weight.numel() for weight in frozen)


def keep_trained(state_dict: dict[str, Tensor], model: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Return the state dict without the model's frozen weights. Buffers stay.

    Args:
        state_dict: state of the model, or of a module that contains it.
        model: the model.
        prefix: prefix of the model's names in `state_dict`: `model.`.
    """
    # With duplicates, so that a tied weight is dropped under each of its names.
    named = model.named_parameters(remove_duplicate=False)
    frozen = {prefix + name for name, weight in named if not weight.requires_grad}
    return {name: value for name, value in state_dict.items() if name not in frozen}


def layer_stacks(model: PreTrainedModel) -> dict[str, nn.ModuleList]:
    """Return the body's layers: {"layers": …}, or {"encoder.layers": …, "decoder.layers": …}.

    A stack is the largest ModuleList that is inside no other ModuleList.
    """
    if not model.config.is_encoder_decoder:
        return {"layers": _largest_list(model.base_model)}
    sides = {"encoder": model.get_encoder(), "decoder": model.get_decoder()}
    return {f"{side}.layers": _largest_list(part) for side, part in sides.items()}


def weights_of(model: PreTrainedModel, part: str, option: str) -> set[nn.Parameter]:
    """Return the weights of a part of the model, named as for `freeze`.

    option: the option that names it, for messages.

    Raises: UserError if the model has no such part.
    """
    if part == "embeddings":
        return embedding_weights(model)
    if part == "head":
        head = head_weights(model)
        if not head:
            what = f"the head of {model.config.model_type} is tied to its embeddings"
            _refuse(what, option, "embeddings")
        return head
    if match := _LAYERS.fullmatch(part):
        stacks = layer_stacks(model)
        side = match[1] or ""
        chosen = [name for name in stacks if name.startswith(side)]
        if chosen:
            return {
                weight for name in chosen for weight in _layers(model, name, stacks[name], match, option)
            }
    named = model.named_parameters(remove_duplicate=False)
    weights = {weight for name, weight in named if f"{name}.".startswith(f"{part}.")}
    if not weights:
        _refuse_unknown(model, part, option)
    return weights


def _layers(
    model: PreTrainedModel, name: str, stack: nn.ModuleList, match: re.Match[str], option: str
) -> set[nn.Parameter]:
    """Return the weights of the layers that `match` of _LAYERS selects in a stack. Raises: UserError."""
    first = int(match[2] or 0)
    last = int(match[3] or match[2] or len(stack) - 1)
    if not first <= last < len(stack):
        asked = f"{name}.{first}-{last}" if match[3] else f"{name}.{first}"
        available = f"{name}.0-{len(stack) - 1}" if len(stack) > 1 else f"{name}.0"
        are_shared = name == "layers" and len(stack) < model.config.num_hidden_layers
        note = " (all layers share it)" if are_shared else ""
        what = f"{option}: {model.config.model_type} has {available}{note}, not {asked}"
        _refuse(what, option, available)
    return {weight for layer in stack[first : last + 1] for weight in layer.parameters()}


def embedding_weights(model: PreTrainedModel) -> set[nn.Parameter]:
    """Return the weights of the body outside its layers, except final norms."""
    stacks = list(layer_stacks(model).values())
    in_layers = {weight for stack in stacks for weight in stack.parameters()}
    final_norms = _final_norms(model.base_model, stacks)
    return set(model.base_model.parameters()) - head_weights(model) - in_layers - final_norms


def head_weights(model: PreTrainedModel) -> set[nn.Parameter]:
    """Return the weights outside the body and those of the output projection, except tied ones.

    T5's body is the whole model, so its output projection is inside it.
    """
    head = set(model.parameters()) - set(model.base_model.parameters())
    output = model.get_output_embeddings()
    if output:
        head |= set(output.parameters())
    return head - set(model.get_input_embeddings().parameters())


def _final_norms(body: nn.Module, stacks: list[nn.ModuleList]) -> set[nn.Parameter]:
    """Return the weights of norms in the same module as a stack, except those of the embeddings."""
    parents = [
        module for module in body.modules() if any(child in stacks for child in module.children())
    ]
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


def _refuse(what: str, option: str, instead: str) -> NoReturn:
    raise UserError(what, option, f"name {instead} there")


def _refuse_unknown(model: PreTrainedModel, part: str, option: str) -> NoReturn:
    stacks = layer_stacks(model)
    names = ["embeddings"]
    if head_weights(model):
        names.append("head")
    names += dict.fromkeys(["layers", *stacks])
    prefixes = {
        name[: dot.start()] for name, _ in model.named_parameters() for dot in re.finditer(r"\.", name)
    }
    hint = did_you_mean(part, [*names, *prefixes])
    raise UserError(
        f"{option}: {model.config.model_type} has no part '{part}'{hint}",
        fix=f"{', '.join(names)}, some layers ({next(iter(stacks))}.0-1), "
        "or the beginning of weights' names",
    )
