"""Logits at the targets only, and the loss over them in parts of bounded memory."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lmft.models.cross_entropy import computed_in, linear_nats, linear_scores
from lmft.models.inside_forward import Head, at_targets, rows_at
from lmft.models.sharding import is_sharded

# Bytes of logits at a time.
_MOST_BYTES = {"cpu": 1 << 27, "cuda": 1 << 28}
# Of a head that is the model's own code, whose logits have copies in float32 and gradients beside them.
_MOST_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 27}


def target_logits(
    model: nn.Module, body: nn.Module, inputs: dict[str, Any], target_index: Tensor
) -> Tensor:
    """Return the model's logits at some positions only. [K, V]

    A hook selects K rows of the body's output, so that all that follows (transform, vocabulary
    projection, biases, soft caps) is the model's own code on K rows instead of B * T.

    Args:
        model: the model with its head.
        body: the part of the model that returns hidden states [B, T, D].
        inputs: arguments of the model.
        target_index: [K] flat positions row * T + column.
    """

    def keep_targets(_module: nn.Module, _args: Any, output: Any) -> Any:
        # [1, K, D].
        output.last_hidden_state = rows_at(output.last_hidden_state, target_index).unsqueeze(0)
        return output

    handle = body.register_forward_hook(keep_targets)
    try:
        return model(**inputs).logits.squeeze(0)
    finally:
        handle.remove()


def target_nats(
    model: PreTrainedModel,
    body: nn.Module,
    inputs: dict[str, Any],
    target_index: Tensor,
    targets: Tensor,
) -> Tensor:
    """Return the sum of −log p(target) over the targets [K]; targets of −100 are left out.

    If there are too many logits to be held at once, they and their gradients are computed part by part.
    """

    def of_layer(rows: Tensor, layer: nn.Linear) -> Tensor:
        max_rows = _rows_of_layer(layer, rows.device)
        if torch.is_grad_enabled():
            return linear_nats(rows, layer.weight, layer.bias, targets, max_rows)
        return linear_scores(rows, layer.weight, layer.bias, targets, max_rows)[0].sum()

    def of_head(rows: Tensor, head: Head) -> Tensor:
        max_rows = rows_at_a_time(_MOST_LOGITS, _vocab_size(model), rows.device)
        if not torch.is_grad_enabled():
            return _scores_by_parts(head, rows, targets, max_rows)[0].sum()
        # Devices that share weights gather them for one call of the model.
        if len(rows) <= max_rows or is_sharded(model):
            return nats(head(rows), targets)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        return _NatsByParts.apply(head, max_rows, targets, rows, *weights)

    return at_targets(model, body, inputs, target_index, of_layer, of_head)


@torch.no_grad()
def target_scores(
    model: PreTrainedModel,
    body: nn.Module,
    inputs: dict[str, Any],
    target_index: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the nats of each target [K] in float32 and whether it is predicted right [K].

    Without gradients. In the padding of K both are 0.
    """

    def of_layer(rows: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
        max_rows = _rows_of_layer(layer, rows.device)
        return linear_scores(rows, layer.weight, layer.bias, targets, max_rows)

    def of_head(rows: Tensor, head: Head) -> tuple[Tensor, Tensor]:
        max_rows = rows_at_a_time(_MOST_LOGITS, _vocab_size(model), rows.device)
        return _scores_by_parts(head, rows, targets, max_rows)

    return at_targets(model, body, inputs, target_index, of_layer, of_head)


def rows_at_a_time(most: dict[str, int], size: int, device: torch.device) -> int:
    """Return how many rows of a size are held at once, given the most on each type of device."""
    return max(1, most.get(device.type, most["cuda"]) // size)


def _rows_of_layer(layer: nn.Linear, device: torch.device) -> int:
    size = layer.out_features * computed_in(layer.weight).itemsize
    return rows_at_a_time(_MOST_BYTES, size, device)


def _vocab_size(model: PreTrainedModel) -> int:
    return model.config.get_text_config().vocab_size


def _scores_by_parts(head: Head, rows: Tensor, targets: Tensor, max_rows: int) -> tuple[Tensor, Tensor]:
    nats_of_parts = []
    hits = []
    for part, part_targets in zip(rows.split(max_rows), targets.split(max_rows), strict=True):
        logits = head(part)
        nats_of_parts.append(F.cross_entropy(logits.float(), part_targets, reduction="none"))
        hits.append(logits.argmax(-1) == part_targets)
    return torch.cat(nats_of_parts), torch.cat(hits)


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of −log p(target) in float32; targets of −100 are left out.

    Args:
        logits: [K, V].
        targets: [K] token ids.
    """
    return F.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100)


class _NatsByParts(torch.autograd.Function):
    """Sum of nats of many rows; logits and gradients exist for one part of the rows at a time.

    The loss is a sum, so the gradient of a part depends on that part only. Forward computes it while the
    part's logits exist, and backward scales it (as Liger Kernel's fused cross-entropy does).
    """

    @staticmethod
    def forward(
        ctx: Any, head: Head, max_rows: int, targets: Tensor, hidden: Tensor, *weights: Tensor
    ) -> Tensor:
        """Return the sum of nats, and keep the gradients for backward.

        Args:
            ctx: torch's context.
            head: hidden states [n, D] to logits [n, V].
            max_rows: most rows of a part.
            targets: [K] token ids.
            hidden: [K, D] hidden states.
            weights: all trained weights; those that the head does not use get no gradient.
        """
        total = torch.zeros((), device=hidden.device)
        ctx.hidden_gradient = torch.empty_like(hidden)
        weight_gradients: list[Tensor | None] = [None] * len(weights)
        start = 0
        for rows, part_targets in zip(hidden.split(max_rows), targets.split(max_rows), strict=True):
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                loss = nats(head(rows), part_targets)
            gradients = torch.autograd.grad(loss, [rows, *weights], allow_unused=True)
            ctx.hidden_gradient[start : start + len(rows)] = gradients[0]
            for index, gradient in enumerate(gradients[1:]):
                weight_gradients[index] = _sum(weight_gradients[index], gradient)
            total += loss.detach()
            start += len(rows)
        ctx.weight_gradients = weight_gradients
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients that forward computed, scaled by the gradient of the sum."""
        ctx.hidden_gradient.mul_(gradient)
        for weight_gradient in ctx.weight_gradients:
            if weight_gradient is not None:
                weight_gradient.mul_(gradient)
        return None, None, None, ctx.hidden_gradient, *ctx.weight_gradients


def _sum(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    """Add a gradient to the total in place; either may be None."""
    if total is None:
        return gradient
    if gradient is not None:
        total.add_(gradient)
    return total
