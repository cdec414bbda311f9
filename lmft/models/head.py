"""Logits only where there is a target, and never more of them at a time than memory likes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Head = Callable[[Tensor], Tensor]
"""Hidden states [n, D] to logits [n, V]."""

_MOST_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 27}  # at a time: 64 MB and 512 MB of float32


def target_logits(model: nn.Module, body: nn.Module, inputs: dict[str, Any], target_index: Tensor) -> Tensor:
    """The model's own logits at some positions only. [K, V]

    The rows of interest are picked as the body hands over its hidden states, so everything behind it
    (transform, vocabulary projection, biases, soft caps) is the model's own code on K rows instead of B * T.

    body: the part of the model whose output is [B, T, D]; target_index: [K] flat positions row * T + column.
    """

    def keep_targets(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = _rows(output.last_hidden_state, target_index).unsqueeze(0)  # [1, K, D]
        return output

    handle = body.register_forward_hook(keep_targets)
    try:
        return model(**inputs).logits.squeeze(0)
    finally:
        handle.remove()


def target_nats(
    model: PreTrainedModel, body: nn.Module, inputs: dict[str, Any], target_index: Tensor, targets: Tensor
) -> Tensor:
    """The sum of −log p(target) over the targets [K]; −100 counts nothing.

    Where there are too many logits to be held at once, they are computed part by part, and their gradient
    with them.
    """
    most = rows_at_a_time(model, targets.device)
    if len(targets) <= most:
        return nats(target_logits(model, body, inputs, target_index), targets)
    hidden, head = _apart(model, body, inputs, target_index)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not torch.is_grad_enabled():
        parts = zip(hidden.split(most), targets.split(most), strict=True)
        return torch.stack([nats(head(rows), some) for rows, some in parts]).sum()
    return _NatsByParts.apply(head, most, targets, hidden, *weights)


def target_scores(
    model: PreTrainedModel, body: nn.Module, inputs: dict[str, Any], target_index: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """(sum of nats, number of targets that are the likeliest token), without gradients."""
    hidden, head = _apart(model, body, inputs, target_index)
    most = rows_at_a_time(model, targets.device)
    sums, hits = [], []
    for rows, some in zip(hidden.split(most), targets.split(most), strict=True):
        logits = head(rows)
        sums.append(nats(logits, some))
        hits.append((logits.argmax(-1) == some).sum())
    return torch.stack(sums).sum(), torch.stack(hits).sum()


def rows_at_a_time(model: PreTrainedModel, device: torch.device) -> int:
    """How many rows of logits are held at once."""
    vocab_size = model.config.get_text_config().vocab_size
    return max(1, _MOST_LOGITS.get(device.type, _MOST_LOGITS["cuda"]) // vocab_size)


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of −log p(target) in float32; targets of −100 count nothing. logits [K, V], targets [K] →
    scalar
    """
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100)


def _rows(hidden: Tensor, target_index: Tensor) -> Tensor:
    """[B, T, D] → [K, D]"""
    return hidden.flatten(0, 1).index_select(0, target_index)


def _apart(
    model: PreTrainedModel, body: nn.Module, inputs: dict[str, Any], target_index: Tensor
) -> tuple[Tensor, Head]:
    """The body's hidden states at the targets [K, D], and the model's own code behind it as a function of
    some rows.
    """
    found: list[Any] = []

    def keep_one(_module: nn.Module, _args: Any, output: Any) -> Any:
        found[:] = [output, _rows(output.last_hidden_state, target_index)]
        output = copy(output)
        # For the head to have something; its answer is not read.
        output.last_hidden_state = found[1][:1].unsqueeze(0)
        return output

    handle = body.register_forward_hook(keep_one)
    try:
        result = model(**inputs)
    finally:
        handle.remove()
    output, hidden = found
    # Then the encoder need not read again.
    if (encoded := result.get("encoder_last_hidden_state")) is not None:
        inputs = {**inputs, "encoder_outputs": (encoded.detach(),)}

    def head(rows: Tensor) -> Tensor:
        known = copy(output)
        known.last_hidden_state = rows.unsqueeze(0)
        with _forward_replaced(body, lambda *args, **kwargs: known):
            return model(**inputs).logits.squeeze(0)

    return hidden, head


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = module.__dict__.get("forward")  # a compiled one
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


class _NatsByParts(torch.autograd.Function):
    """Sum of nats of many rows, of which a part has its logits and its gradient at a time.

    The loss is a sum, so the gradient of a part needs nothing but the part: it is taken at once, before the
    logits are let go, and scaled by what comes from above later (as Liger Kernel's fused cross-entropy does).
    """

    @staticmethod
    def forward(ctx: Any, head: Head, most: int, targets: Tensor, hidden: Tensor, *weights: Tensor) -> Tensor:
        """hidden [K, D] and the weights that may be trained; those that the head does not use get no
        gradient.
        """
        total = torch.zeros((), device=hidden.device)
        of_hidden, of_weights = torch.empty_like(hidden), [None] * len(weights)
        start = 0
        for rows, some in zip(hidden.split(most), targets.split(most), strict=True):
            with torch.enable_grad():
                rows = rows.detach().requires_grad_()
                loss = nats(head(rows), some)
            of_rows, *found = torch.autograd.grad(loss, [rows, *weights], allow_unused=True)
            of_hidden[start : start + len(rows)] = of_rows
            of_weights = [_sum(before, more) for before, more in zip(of_weights, found, strict=True)]
            total += loss.detach()
            start += len(rows)
        ctx.of_hidden, ctx.of_weights = of_hidden, of_weights
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What forward found, scaled."""
        of_weights = (None if each is None else each.mul_(gradient) for each in ctx.of_weights)
        return None, None, None, ctx.of_hidden.mul_(gradient), *of_weights


def _sum(before: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if before is None else before if more is None else before.add_(more)
