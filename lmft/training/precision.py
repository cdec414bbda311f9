"""`trainer.precision=auto`: the fastest precision that the device computes in."""

import torch
from lightning import Trainer

from lmft.errors import UserError
from lmft.training.cpu import cpu_computes_bf16


def resolve_precision(precision: str, accelerator: str) -> str:
    """bf16-mixed where the device has bf16 units (GPUs; CPUs with AVX512-BF16 or AMX), else 16-mixed or
    32-true.
    """
    if precision != "auto":
        return precision
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("cpu", "auto") and not torch.backends.mps.is_available():
        return "bf16-mixed" if cpu_computes_bf16() else "32-true"
    return "32-true"


def check_precision(precision: str, trainer: Trainer) -> None:
    """Raises UserError where Lightning would compute in another precision than was asked for: float16 on a
    CPU.
    """
    if trainer.precision != precision:
        what = f"trainer.precision={precision}: on {trainer.strategy.root_device.type} it would be {trainer.precision}"
        raise UserError(what, fix=f"trainer.precision={trainer.precision}, or auto")


def check_accelerator(accelerator: str) -> None:
    """Raises UserError where the accelerator asked for is not there."""
    there = {
        "gpu": torch.cuda.is_available,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if isinstance(accelerator, str) and accelerator in there and not there[accelerator]():
        raise UserError(
            f"trainer.accelerator={accelerator}: this machine has none", fix="trainer=auto or trainer=cpu"
        )
