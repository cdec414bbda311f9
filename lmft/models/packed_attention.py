"""Attention that stays inside the documents of a packed row, without masks of [T, T]."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lmft.objectives.document_starts import document_starts as starts_of

NAME = "lmft_packed"
"""The implementation of attention, as transformers knows it; no exported config contains it."""

_FLASH_TYPES = (torch.bfloat16, torch.float16)
# Arguments that some models pass and that the kernels do not take: caps of scores, sinks, biases.
_NOT_TAKEN = ("softcap", "s_aux", "position_bias")


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    lmft_rows: str | None = None,
    document_starts: Tensor | None = None,
    windows_seen: list[int | None] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each document, or within each row; transformers' models call this in each layer.

    Args:
        module: the model's module of attention.
        query: [B, H, T, D].
        key: [B, G, T, D]; G divides H.
        value: [B, G, T, D].
        attention_mask: the mask of a call that names no rows; else not read.
        dropout: rate at which attention weights are dropped.
        scaling: factor of the scores; None: 1/√D.
        is_causal: whether a token sees only the tokens before it; None: what the module says.
        sliding_window: a token sees tokens that are less than this far away; None: no limit.
        lmft_rows: `plain` or `packed`: the rows are full, and lmft has made no mask for them; None: a
            call of other code, which is computed as sdpa.
        document_starts: [N + 1] int32, only with `packed`, as of `document_starts`.
        windows_seen: `sliding_window` is added to it.
        kwargs: other arguments of the model.

    Returns: [B, T, H, D], and no weights.
    """
    if windows_seen is not None:
        windows_seen.append(sliding_window)
    sdpa = functools.partial(sdpa_attention_forward, module, query, key, value, dropout=dropout)
    if lmft_rows is None:
        return sdpa(attention_mask, scaling=scaling, is_causal=is_causal, **kwargs)
    if unknown := [name for name in _NOT_TAKEN if kwargs.get(name) is not None]:
        raise ValueError(f"packed attention takes no {unknown[0]}")
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if sliding_window is not None and sliding_window >= query.shape[2]:
        sliding_window = None
    if document_starts is None and sliding_window is None:
        return sdpa(None, scaling=scaling, is_causal=causal)
    if document_starts is None:
        document_starts = _starts_of_rows(query)
    window = _window(sliding_window, causal)
    attend = _kernel(query, value)
    if attend is None:
        mask = _mask(document_starts, query, window)
        return sdpa(mask, scaling=scaling, is_causal=False)
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]  # [B * T, H or G, D]
    output = attend(*flat, document_starts, query.shape[2], dropout, scaling, window)
    return output.unflatten(0, (query.shape[0], query.shape[2])), None


def _starts_of_rows(query: Tensor) -> Tensor:
    """Return where rows begin, as of `document_starts`."""
    rows = torch.arange(query.shape[0] + 1, device=query.device, dtype=torch.int32)
    return rows * query.shape[2]


def _kernel(query: Tensor, value: Tensor) -> Callable[..., Tensor] | None:
    """Return the function that attends within documents on this device; None: a mask has to do."""
    # Compiled, a loop over documents would be compiled again for each of their layouts.
    if query.device.type == "cpu" and not torch.compiler.is_compiling():
        return _one_by_one
    return _by_flash if _takes_flash(query, value) else None


def _mask_of_padding(
    *sizes: Any,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **more: Any,
) -> Tensor | None:
    """Return the mask of transformers' `sdpa_mask`, without asking a GPU whether any token is padding.

    transformers asks at the beginning of each forward pass, to leave out a mask that hides nothing. The
    host would wait there for the steps so far.
    """
    if attention_mask is not None and _is_on_gpu(attention_mask):
        allow_is_causal_skip = False
        allow_is_bidirectional_skip = False
    return sdpa_mask(
        *sizes,
        attention_mask=attention_mask,
        allow_is_causal_skip=allow_is_causal_skip,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        **more,
    )


def _is_on_gpu(mask: Tensor) -> bool:
    return mask.is_cuda


AttentionInterface.register(NAME, packed_attention)
for _name in (NAME, "sdpa"):  # for calls of other code: answers, padded rows
    AttentionMaskInterface.register(_name, _mask_of_padding)


def _window(sliding_window: int | None, causal: bool) -> tuple[int, int]:
    """Return how many tokens to the left and to the right a token sees; −1: all of its document."""
    reach = -1 if sliding_window is None else sliding_window - 1
    return reach, 0 if causal else reach


def _takes_flash(query: Tensor, value: Tensor) -> bool:
    head_size = query.shape[-1]
    is_even = head_size == value.shape[-1] and head_size % 8 == 0 and head_size <= 256
    return query.is_cuda and is_even and flash_type(query.device, query.dtype) is not None


def flash_type(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """Return the number format in which flash attention would compute; None: it does not take it.

    Args:
        device: where the model is.
        dtype: that of queries, or of the weights.
    """
    if device.type != "cuda":
        return None
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    return dtype if dtype in _FLASH_TYPES and _has_flash(device) else None


@torch.compiler.assume_constant_result  # as a call in a graph it would keep that out of torch's cache
def _has_flash(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _by_flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    dropout: float,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    """Attend within documents by one flash kernel for all of them; it skips what lies between them.

    Args:
        query: [B * T, H, D].
        key: [B * T, G, D].
        value: [B * T, G, D].
        starts: [N + 1] int32; documents of no token are allowed.
        longest: no document has more tokens.
        dropout: as of `packed_attention`.
        scaling: as of `packed_attention`.
        window: tokens seen to the left and to the right; −1: all.
    """
    dtype = flash_type(query.device, query.dtype)  # autocast does not know these kernels
    query, key, value = (x.to(dtype) for x in (query, key, value))  # fmt: skip
    has_groups = query.shape[1] != key.shape[1]
    if not dropout and _varlen is not None:
        more = {"enable_gqa": True} if has_groups else {}
        sizes = (starts, starts, longest, longest)
        return _varlen(query, key, value, *sizes, scale=scaling, window_size=window, **more)
    # The same kernel by its own name, which alone takes dropout; it takes groups of heads as they are.
    return torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        starts,
        starts,
        longest,
        longest,
        dropout,
        window == (-1, 0),
        False,
        scale=scaling,
        window_size_left=window[0],
        window_size_right=window[1],
    )[0]


def _find_varlen() -> Callable[..., Any] | None:
    """Return torch's `varlen_attn`; None if this torch has none with windows and groups of heads."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    taken = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= taken.keys() else None


_varlen = _find_varlen()  # once: compiled code would look for it by itself, and warn of a cache


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    dropout: float,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    """Attend within one document after the other, on a CPU. Arguments as of `_by_flash`."""
    lengths = [length for length in starts.diff().tolist() if length]
    outputs = []
    for parts in zip(*(x.split(lengths) for x in (query, key, value)), strict=True):
        rows = [part.transpose(0, 1)[None] for part in parts]  # [1, H or G, length, D]
        length = len(parts[0])
        is_whole = window[0] < 0 or window[0] >= length - 1
        mask = None if is_whole else _near(torch.arange(length), window)
        output = F.scaled_dot_product_attention(
            *rows,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=is_whole and window[1] == 0,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


def _near(columns: Tensor, window: tuple[int, int]) -> Tensor:
    """Return which columns each column sees. [T, T] bool"""
    distance = columns[:, None] - columns
    left, right = (distance.numel() if reach < 0 else reach for reach in window)
    return (distance <= left) & (distance >= -right)


def _mask(starts: Tensor, query: Tensor, window: tuple[int, int]) -> Tensor:
    """Return which tokens see which, where no kernel takes the starts. [B, 1, T, T] bool"""
    num_rows = query.shape[0]
    num_tokens = query.shape[2]
    places = torch.arange(num_rows * num_tokens, device=starts.device, dtype=starts.dtype)
    documents = torch.bucketize(places, starts[1:], right=True).view(num_rows, num_tokens)
    same = documents[:, :, None] == documents[:, None, :]
    return (same & _near(torch.arange(num_tokens, device=starts.device), window)).unsqueeze(1)


def packed_inputs(documents: Tensor, starts: Tensor | None) -> dict[str, Any]:
    """Return arguments of a model with this attention that keep it inside each token's document.

    Args:
        documents: [B, T] the number of each token's document, −1 for padding.
        starts: [N + 1] int32, as of `document_starts`; None: they are found from `documents`.
    """
    if starts is None:
        starts = torch.from_numpy(starts_of(documents.cpu().numpy())).to(documents.device)
    return {"lmft_rows": "packed", "document_starts": starts}


def takes_starts(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether documents are kept apart faster by their starts than by one mask for all layers.

    Args:
        device: where the model is.
        dtype: the number format of its weights.
    """
    return device.type == "cpu" or flash_type(device, dtype) is not None
