"""The loss over a vocabulary: lmft's head, beside all logits at once and torch's fused function."""

from collections.abc import Callable
from typing import Any

from benchmarks.figures import compared, value, values_of, ways_of
from benchmarks.session import Session

COMMAND = "python -m benchmarks head"
SIZES = {  # rows, vocabulary, width
    "DistilBERT 64 × 128": (1280, 30_522, 768),
    "GPT-2 8 × 1024": (8192, 50_257, 768),
    "T5 64 × 114": (7424, 32_128, 768),
}
CPU_SIZES = {"DistilBERT 16 × 128": (320, 30_522, 768)}
TINY_SIZES = {"tiny": (64, 1001, 32)}
WHOLE = "all logits at once"
DISTANCE = "relative distance of the gradient"


def run(session: Session) -> None:
    """Measure forward and backward, memory, and the distance of gradients from those of all logits."""
    sizes = SIZES if session.has_gpu else CPU_SIZES
    for name, (rows, vocab_size, width) in (TINY_SIZES if session.is_tiny else sizes).items():
        given: dict[str, Any] = {"num_rows": rows, "vocab_size": vocab_size, "width": width}
        rounds = session.in_turns({"head": session.side("suites.head:measured", **given)})
        ways = ways_of(rounds["head"])
        session.row("Head", f"{name}: time", COMMAND, compared(ways, "ms", "ms"))
        session.row("Head", f"{name}: memory", COMMAND, compared(ways, "GB", "GB"))
        distance = values_of(ways, "lmft", DISTANCE)
        if distance:
            session.row("Head", f"{name}: {DISTANCE}", COMMAND, [value(distance, "")])


def measured(num_rows: int, vocab_size: int, width: int) -> dict[str, float]:
    """Return `WAY, ms`, `WAY, GB` and `WAY, error` of each way to compute the loss."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from benchmarks import kernels
    from benchmarks.clock import device
    from lmft.models.head import target_nats

    config = GPT2Config(
        vocab_size=vocab_size, n_embd=width, n_layer=0, n_positions=num_rows, embd_pdrop=0.0
    )
    built: Any = GPT2LMHeadModel(config)
    model = built.to(device()).train()
    tokens = torch.randint(0, vocab_size, (1, num_rows), device=device())
    targets = tokens.roll(-1).flatten()
    index = torch.arange(num_rows, device=device())

    def whole() -> Any:
        logits = model(input_ids=tokens).logits[0]
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum")

    def ours() -> Any:
        return target_nats(model, model.transformer, {"input_ids": tokens}, index, targets)

    ways = {WHOLE: _step(model, whole), "lmft": _step(model, ours)}
    fused = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if fused and device() == "cuda":

        def by_torch() -> Any:
            hidden = model.transformer(input_ids=tokens).last_hidden_state[0].bfloat16()
            return fused(hidden, model.lm_head.weight.bfloat16(), targets, reduction="sum")

        ways["torch's linear_cross_entropy"] = _step(model, by_torch)
    table = kernels.measured(ways, 3)
    ways[WHOLE]()
    truth = model.lm_head.weight.grad.clone()
    found = {}
    for name, figures in table.items():
        ways[name]()
        error = kernels.error_of(model.lm_head.weight.grad, truth)
        found |= {f"{name}, {unit}": number for unit, number in figures.items()}
        found[f"{name}, {DISTANCE}"] = error
    return found


def _step(model: Any, nats: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that computes the loss `nats` and its gradients in bfloat16."""
    import torch

    from benchmarks.clock import device

    def step() -> Any:
        model.zero_grad()
        with torch.autocast(device(), torch.bfloat16, cache_enabled=False):
            loss = nats()
        (loss / 1024).backward()
        return loss.detach()

    return step
