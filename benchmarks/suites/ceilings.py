"""The limits of the device: matrix products, copies, and the cost of a vocabulary of an odd size."""

from benchmarks.figures import value
from benchmarks.session import Session

COMMAND = "python -m benchmarks ceilings"
VOCABULARIES = (30_522, 30_592, 50_257, 50_304)  # two odd ones, and the next multiples of 64


def run(session: Session) -> None:
    """Measure all."""
    rounds = session.in_turns(
        {"device": session.side("suites.ceilings:measured", tiny=session.is_tiny)}
    )["device"]
    for figure in rounds[0] if rounds else ():
        unit = "TB/s" if figure == "copy" else "TFLOP/s"
        session.row("Ceilings", figure, COMMAND, [value([row[figure] for row in rounds], unit)])


def measured(tiny: bool) -> dict[str, float]:
    """Return TFLOP/s and TB/s."""
    import torch

    from benchmarks.ceiling import timed
    from benchmarks.clock import device
    from benchmarks.kernels import random

    size = 256 if tiny else 8192 if device() == "cuda" else 2048
    a, b = random(size, size), random(size, size)
    found = {f"bfloat16 product of {size} × {size}": 2 * size**3 / timed(lambda: a @ b) / 1e12}
    source = torch.randn(size * size, device=device())
    target = torch.empty_like(source)
    found["copy"] = 8 * source.numel() / timed(lambda: target.copy_(source)) / 1e12
    num_rows, width = (32, 16) if tiny else (8192, 768) if device() == "cuda" else (320, 768)
    for vocab_size in VOCABULARIES:
        hidden, weight = random(num_rows, width), random(vocab_size, width)
        gradient = random(num_rows, vocab_size)
        seconds = timed(lambda: (hidden @ weight.t(), gradient @ weight, gradient.t() @ hidden))  # noqa: B023
        found[f"the head's products with {vocab_size:,} tokens"] = (
            6 * num_rows * width * vocab_size / seconds / 1e12
        )
    return found
