"""Logits only where there is a target."""

from typing import Any

import torch
from torch import Tensor, nn


def target_logits(model: nn.Module, body: nn.Module, inputs: dict[str, Any], target_index: Tensor) -> Tensor:
    """The model's own logits at some positions only. [K, V]

    The rows of interest are picked as the body hands over its hidden states, so everything behind it (transform,
    vocabulary projection, biases, soft caps) is the model's own code on K rows instead of B * T.

    body: the part of the model whose output is [B, T, D]; target_index: [K] flat positions row * T + column.
    """

    def keep_targets(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state  # [B, T, D]
        output.last_hidden_state = hidden.flatten(0, 1).index_select(0, target_index).unsqueeze(0)  # [1, K, D]
        return output

    handle = body.register_forward_hook(keep_targets)
    try:
        return model(**inputs).logits.squeeze(0)
    finally:
        handle.remove()


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of −log p(target) in float32; targets of −100 count nothing. logits [K, V], targets [K] → scalar"""
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum", ignore_index=-100)
