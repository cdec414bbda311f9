"""Logits at the targets only, and the loss over them in parts of bounded memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmft.models.sharding import is_sharded

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V]."""

_MOST_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 27}  # at a time: 64 MB and 512 MB of float32


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
        output.last_hidden_state = _rows(output.last_hidden_state, target_index).unsqueeze(0)
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
    max_rows = rows_at_a_time(model, targets.device)
    # Devices that share weights gather them for one call of the model.
    if len(targets) <= max_rows or (is_sharded(model) and torch.is_grad_enabled()):
        return nats(target_logits(model, body, inputs, target_index), targets)
    hidden, head = _split_at_head(model, body, inputs, target_index)
    if not torch.is_grad_enabled():
        parts = zip(hidden.split(max_rows), targets.split(max_rows), strict=True)
        return torch.stack([nats(head(rows), part_targets) for rows, part_targets in parts]).sum()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return _NatsByParts.apply(head, max_rows, targets, hidden, *weights)


def target_scores(
    model: PreTrainedModel,
    body: nn.Module,
    inputs: dict[str, Any],
    target_index: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the nats of each target [K] and whether it is predicted right [K], without gradients.

    In the padding of K both are 0.
    """
    hidden, head = _split_at_head(model, body, inputs, target_index)
    max_rows = rows_at_a_time(model, targets.device)
    nats_of_parts = []
    hits = []
    for rows, part_targets in zip(hidden.split(max_rows), targets.split(max_rows), strict=True):
        logits = head(rows)
        nats_of_parts.append(_each_nats(logits, part_targets))
        hits.append(logits.argmax(-1) == part_targets)
    return torch.cat(nats_of_parts), torch.cat(hits)


def each_target_nats(
    model: PreTrainedModel,
    body: nn.Module,
    inputs: dict[str, Any],
    target_index: Tensor,
    targets: Tensor,
) -> Tensor:
    """Return −log p of each target [K] in float32, without gradients. [K]"""
    max_rows = rows_at_a_time(model, targets.device)
    if len(targets) <= max_rows:
        return _each_nats(target_logits(model, body, inputs, target_index), targets)
    hidden, head = _split_at_head(model, body, inputs, target_index)
    parts = zip(hidden.split(max_rows), targets.split(max_rows), strict=True)
    return torch.cat([_each_nats(head(rows), part_targets) for rows, part_targets in parts])


def _each_nats(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def rows_at_a_time(model: PreTrainedModel, device: torch.device) -> int:
    """Return how many rows of logits are held at once."""
    vocab_size = model.config.get_text_config().vocab_size
    return max(1, _MOST_LOGITS.get(device.type, _MOST_LOGITS["cuda"]) // vocab_size)


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of −log p(target) in float32; targets of −100 are left out.

    Args:
        logits: [K, V].
        targets: [K] token ids.
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100)


def _rows(hidden: Tensor, target_index: Tensor) -> Tensor:
    """Select rows of hidden states: [B, T, D] → [K, D]."""
    return hidden.flatten(0, 1).index_select(0, target_index)


def _split_at_head(
    model: PreTrainedModel, body: nn.Module, inputs: dict[str, Any], target_index: Tensor
) -> tuple[Tensor, Head]:
    """Return the body's hidden states at the targets [K, D], and the model's head as a function of rows.

    The head is the model itself with a body that returns the given rows.
    """
    kept: dict[str, Any] = {}

    def keep_output(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = _rows(output.last_hidden_state, target_index)
        kept["output"] = output
        kept["hidden"] = hidden
        # The head runs on one row, as it has to run on something; its result is not used.
        output = copy(output)
        output.last_hidden_state = hidden[:1].unsqueeze(0)
        return output

    def keep_encoded(_module: nn.Module, _args: Any, output: Any) -> None:
        kept["encoded"] = copy(output)

    handles = [body.register_forward_hook(keep_output)]
    if model.config.is_encoder_decoder:
        handles.append(model.get_encoder().register_forward_hook(keep_encoded))
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    # With its output given, the encoder does not run again.
    if encoded := kept.get("encoded"):
        encoded.last_hidden_state = encoded.last_hidden_state.detach()
        inputs = {**inputs, "encoder_outputs": encoded}

    def head(rows: Tensor) -> Tensor:
        output = copy(kept["output"])
        output.last_hidden_state = rows.unsqueeze(0)
        with _forward_replaced(body, lambda *args, **kwargs: output):
            return model(**inputs).logits.squeeze(0)

    return kept["hidden"], head


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")  # set if the module is compiled
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


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
