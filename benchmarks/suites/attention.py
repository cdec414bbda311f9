"""Attention over packs: a mask, plain causal attention, and torch's variable-length kernels on CUDA."""

from collections.abc import Callable
from typing import Any

from benchmarks.figures import compared, value, values_of, ways_of
from benchmarks.session import Session

COMMAND = "python -m benchmarks attention"
HEADS, WIDTH, NUM_DOCUMENTS = 9, 64, 8
PACKED = "varlen_attn"  # on GPUs
MASK = "mask"


def run(session: Session) -> None:
    """Measure forward and backward, the memory, and the distance from float64."""
    sizes = ((8, 512), (8, 4096)) if session.has_gpu else ((2, 256),)
    for rows, tokens in ((2, 64),) if session.is_tiny else sizes:
        side = session.side("suites.attention:measured", rows=rows, tokens=tokens, tiny=session.is_tiny)
        rounds = session.in_turns({"attention": side})
        ways = ways_of(rounds["attention"])
        size = f"{rows} × {tokens}, {NUM_DOCUMENTS} documents in a row"
        ours = PACKED if PACKED in ways else MASK
        for figure, unit in (("time", "ms"), ("memory", "GB")):
            session.row("Attention", f"{size}: {figure}", COMMAND, compared(ways, unit, unit, ours))
        errors = [
            value(values, "", of=way)
            for way in ways
            if (values := values_of(ways, way, "relative error"))
        ]
        session.row("Attention", f"{size}: relative error", COMMAND, errors)


def measured(rows: int, tokens: int, tiny: bool) -> dict[str, float]:
    """Return `WAY, ms`, `WAY, GB` and `WAY, error` of each way."""
    import torch

    from benchmarks import kernels

    shape = (rows, HEADS, tokens, WIDTH)
    q, k, v = (kernels.random(*shape, grad=True) for _ in range(3))
    gradient = kernels.random(*shape)
    documents = _documents(rows, tokens)  # [B, T]
    ways = _ways(q, k, v, documents)

    def step(way: Callable[[], Any]) -> Callable[[], None]:
        def forward_and_backward() -> None:
            q.grad = k.grad = v.grad = None
            way().backward(gradient)

        return forward_and_backward

    table = kernels.measured({name: step(way) for name, way in ways.items()}, 3 if tiny else 10)
    found = {}
    with torch.no_grad():
        double = (tensor.detach()[:1].double() for tensor in (q, k, v))
        mask = _mask(documents.to(q.device))[:1]
        truth = torch.nn.functional.scaled_dot_product_attention(*double, attn_mask=mask)
        for name, figures in table.items():
            found |= {f"{name}, {unit}": number for unit, number in figures.items()}
            if not name.startswith("causal"):  # which lets documents see each other
                found[f"{name}, relative error"] = kernels.error_of(ways[name]()[:1], truth)
    return found


def _documents(rows: int, tokens: int) -> Any:
    """Return the number of the document that each token is of. [B, T]"""
    import torch

    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(rows):
        ends = torch.sort(
            torch.randperm(tokens - 1, generator=generator)[: NUM_DOCUMENTS - 1] + 1
        ).values
        found.append(torch.bucketize(torch.arange(tokens), ends, right=True))
    return torch.stack(found)


def _mask(documents: Any) -> Any:
    """Return who sees whom. [B, 1, T, T]"""
    return (documents[:, :, None] == documents[:, None]).tril()[:, None]


def _starts(documents: Any) -> Any:
    """Return where documents begin in the flat batch, and its end. [N + 1]"""
    import torch

    rows, tokens = documents.shape
    numbers = (documents + torch.arange(rows)[:, None] * (tokens + 1)).flatten()
    begins = torch.cat([torch.ones(1, dtype=torch.bool), numbers[1:] != numbers[:-1]])
    return torch.cat([begins.nonzero().flatten(), torch.tensor([rows * tokens])]).int()


def _ways(q: Any, k: Any, v: Any, documents: Any) -> dict[str, Callable[[], Any]]:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    attend = torch.nn.functional.scaled_dot_product_attention
    mask = _mask(documents).to(q.device)
    ways: dict[str, Callable[[], Any]] = {
        MASK: lambda: attend(q, k, v, attn_mask=mask),
        "causal": lambda: attend(q, k, v, is_causal=True),
    }
    if not q.is_cuda:
        return ways

    def only(backend: Any) -> Callable[[], Any]:
        def causal() -> Any:
            with sdpa_kernel(backend):
                return attend(q, k, v, is_causal=True)

        return causal

    ways["causal by cuDNN"] = only(SDPBackend.CUDNN_ATTENTION)
    ways["causal by flash attention"] = only(SDPBackend.FLASH_ATTENTION)
    from torch.nn.attention.varlen import varlen_attn

    rows, heads, tokens, width = q.shape
    starts = _starts(documents).to(q.device)

    def packed() -> Any:
        flat = [tensor.transpose(1, 2).reshape(rows * tokens, heads, width) for tensor in (q, k, v)]
        found: Any = varlen_attn(
            flat[0], flat[1], flat[2], starts, starts, tokens, tokens, window_size=(-1, 0)
        )
        return found.view(rows, tokens, heads, width).transpose(1, 2)

    ways[PACKED] = packed
    return ways
