"""How many parameters a model has, and how many are trained, by part; tied ones count once."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lmft.models.freezing import embedding_weights, head_weights, layer_stacks


def count_parameters(
    module: nn.Module, model: PreTrainedModel, has_adapters: bool = False
) -> dict[str, Any]:
    """Count parameters by part of the model.

    Args:
        module: what is trained; it contains the model.
        model: the Hugging Face model.
        has_adapters: whether all that is trained in the model was added to it, as by LoRA.

    Returns: {"total", "trained", "parts": [{"part", "total", "trained"}]}. The parts: embeddings (and
    what is tied to them), layers, head, other (final norms, in general), module for weights outside the
    model, and adapters. Parts without weights are left out.
    """
    parts: list[dict[str, Any]] = []
    counted: set[nn.Parameter] = set()
    for name, weights in _parts(module, model, has_adapters):
        own = set(weights) - counted
        counted |= own
        if own:
            trained = sum(weight.numel() for weight in own if weight.requires_grad)
            total = sum(weight.numel() for weight in own)
            parts.append({"part": name, "total": total, "trained": trained})
    return {
        "total": sum(part["total"] for part in parts),
        "trained": sum(part["trained"] for part in parts),
        "parts": sorted(parts, key=lambda part: part["part"] == "adapters"),
    }


def _parts(
    module: nn.Module, model: PreTrainedModel, has_adapters: bool
) -> Iterable[tuple[str, Iterable[nn.Parameter]]]:
    """Yield the name and weights of each part; of a weight in several parts the first one counts."""
    if has_adapters:
        yield "adapters", [weight for weight in model.parameters() if weight.requires_grad]
    yield "embeddings", embedding_weights(model)
    for name, stack in layer_stacks(model).items():
        yield name.replace(".", " "), stack.parameters()
    yield "head", head_weights(model)
    yield "other", model.parameters()
    yield "module", module.parameters()
