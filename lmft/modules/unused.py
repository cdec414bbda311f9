"""Find out whether a model leaves weights without a gradient, which DDP has to know."""

import logging

import torch
from torch import nn

from lmft.models.trial import ordinary_tokens, to_be_tried
from lmft.modules.visibility import Tried

log = logging.getLogger(__name__)
_NUM_TOKENS = 6  # length of the row


def may_leave_weights_out(module: Tried) -> bool:
    """Return whether a step may leave trained weights without a gradient, found by trying.

    XLNet's segment embeddings have none, since no segments are given. A model that skips layers at
    random may leave out any weight. So may one that does not run on a short row on a CPU.

    Args:
        module: the LightningModule; its weights and torch's generator stay as they are.
    """
    model = module.model
    options = model.config.to_dict()
    if any(rate for name, rate in options.items() if name.endswith("layerdrop")):
        return True
    try:
        return bool(_without_gradient(module))
    except Exception as error:  # of any kind: the model's code may need other rows or devices
        log.info(
            "%s could not be tried: %s", model.config.model_type, " ".join(str(error).split())[:200]
        )
        return True


def _without_gradient(module: Tried) -> list[str]:
    """Return the names of the trained weights that the logits of a short row do not depend on."""
    model = module.model
    tokens = ordinary_tokens(module.tokenizer, model.config, _NUM_TOKENS)[0]
    batch, _ = module.trial(tokens)
    with to_be_tried(model) as tried, torch.enable_grad():
        for part in tried.modules():
            part.__dict__.pop("forward", None)  # a compiled one would compute with the model itself
        device = next(tried.parameters()).device
        inputs = {name: value.to(device) for name, value in batch.items()}
        logits = tried(**module.inputs(inputs)).logits
        named = dict(_trained(tried))
        gradients = torch.autograd.grad(logits.float().sum(), list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
