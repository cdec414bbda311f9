"""The number format of exported weights: bfloat16, float16 or float32."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lmft.models.config import EXPORT_DTYPES, ModelConfig
from lmft.models.loading.hf_config import folders_of
from lmft.system import sharding

log = logging.getLogger(__name__)


def stored_dtype(config: ModelConfig, hf_config: PreTrainedConfig) -> torch.dtype:
    """Return the format in which the weights of the base model are stored; float32 for a new model.

    As in transformers, `dtype` of config.json decides, else the first weight in the folder.

    Args:
        config: the options of `model`.
        hf_config: the Hugging Face config, before weights are loaded.
    """
    if config.from_scratch:
        return torch.float32
    named = hf_config.dtype
    if isinstance(named, str):
        named = getattr(torch, named.removeprefix("torch."), None)
    if isinstance(named, torch.dtype):
        return named
    return _dtype_in(Path(folders_of(config)[0])) or torch.float32


def _dtype_in(folder: Path) -> torch.dtype | None:
    """Return the format of the first floating-point weight in a folder's safetensors; None without."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as weights:
            names = weights.keys()
            for name in names:
                empty = weights.get_slice(name)[:0]
                if empty.is_floating_point():
                    return empty.dtype
    return None


def chosen_dtype(model: PreTrainedModel, asked: str | None, stored: torch.dtype) -> torch.dtype:
    """Return the format in which a trained model is exported.

    It is float32, and a warning says so, if a weight is too large for the format asked for.

    Args:
        model: the trained model.
        asked: `model.export_dtype`: bf16, fp16 or fp32; None: the base's format. Weights that were
            trained in a shorter format than float32 keep it then.
        stored: the base's format.
    """
    dtype = stored if model.dtype == torch.float32 else model.dtype
    if asked is not None:
        dtype = getattr(torch, EXPORT_DTYPES[asked])
    longest = torch.finfo(dtype).max
    parts = [sharding.own_part(weight) for weight in model.parameters()]
    fit = all(part.abs().max() <= longest for part in parts if part.numel())
    if not sharding.anywhere(not fit):
        return dtype
    log.warning(
        "some weights are beyond %.6g, the largest number in %s: the model is exported in float32",
        longest,
        str(dtype).removeprefix("torch."),
    )
    return torch.float32


def round_weights(tensors: Iterable[Tensor], dtype: torch.dtype) -> bool:
    """Round floating-point tensors in place to a format's values; return whether any has changed.

    Where devices share the weights, each process rounds its parts, and learns whether any has changed.
    """
    has_changed = False
    for tensor in map(sharding.own_part, tensors):
        if tensor.is_floating_point():
            rounded = tensor.to(dtype).to(tensor.dtype)
            has_changed = has_changed or not torch.equal(rounded, tensor)
            tensor.copy_(rounded)
    return sharding.anywhere(has_changed)


def store_in(tensors: Iterable[Tensor], dtype: torch.dtype) -> None:
    """Convert floating-point tensors to a format, in place."""
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)
