"""Turn a trained module's weights into those that are exported: adapters merged, numbers rounded."""

import torch
from torch import Tensor

from lmft.models.number_format import chosen_dtype, round_weights, store_in
from lmft.modules.base import LanguageModel


@torch.no_grad()
def hand_over(module: LanguageModel, asked: str | None, stored: torch.dtype) -> tuple[torch.dtype, bool]:
    """Give a trained module the weights that are exported, so that they can be measured.

    Adapters are merged, if they are to be, and the weights are rounded to the format of the export.
    Training cannot be continued afterwards.

    Args:
        module: the trained module; its model is replaced if adapters are merged.
        asked: `model.export_dtype`.
        stored: the format of the base model's weights.

    Returns: the format, and whether rounding has changed any weight.
    """
    if module.adapted is not None and module.adapted.merge:
        _merge(module)
    if module.adapted is not None and asked is None:  # adapters alone: new weights, with no base's
        return torch.float32, False
    dtype = chosen_dtype(module.model, asked, stored)
    return dtype, round_weights(exported_tensors(module), dtype)


@torch.no_grad()
def convert(module: LanguageModel, dtype: torch.dtype) -> None:
    """Store the weights that are exported in a format; the module is for `save_pretrained` only then."""
    store_in(exported_tensors(module), dtype)


def exported_tensors(module: LanguageModel) -> list[Tensor]:
    """Return the tensors that `save_pretrained` writes; of adapters alone the trained weights."""
    if module.adapted is not None:
        return [weight for weight in module.model.parameters() if weight.requires_grad]
    return list(module.model.state_dict(keep_vars=True).values())


def _merge(module: LanguageModel) -> None:
    """Replace the model by a copy with the adapters added into its weights."""
    assert module.adapted is not None
    device = module.device
    merged = module.adapted.merged()
    module.adapted = None
    module.model = merged
    for stack in module.stacks:
        stack.__dict__.pop("forward", None)  # the copy of a compiled one calls the stack with adapters
    module.to(device)
