"""Resolve `trainer.precision=auto`, and check precision and accelerator."""

import torch
from lightning import Trainer

from lmft.errors import UserError
from lmft.training.cpu import cpu_computes_bf16


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return the precision; for `auto` the fastest that the device computes in.

    That is bf16-mixed on GPUs and CPUs with bf16 units (AVX512-BF16, AMX), else 16-mixed on GPUs and
    32-true elsewhere.
    """
    if precision != "auto":
        return precision
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator in ("cpu", "auto") and not torch.backends.mps.is_available():
        return "bf16-mixed" if cpu_computes_bf16() else "32-true"
    return "32-true"


def check_precision(precision: str, trainer: Trainer) -> None:
    """Raise UserError if Lightning replaced the precision, as it does with float16 on CPUs."""
    if trainer.precision != precision:
        device = trainer.strategy.root_device.type
        what = f"trainer.precision={precision}: on {device} it would be {trainer.precision}"
        raise UserError(what, fix=f"trainer.precision={trainer.precision}, or auto")


def check_accelerator(accelerator: str) -> None:
    """Raise UserError if the machine does not have the accelerator."""
    is_available = {
        "gpu": torch.cuda.is_available,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if isinstance(accelerator, str) and accelerator in is_available and not is_available[accelerator]():
        raise UserError(
            f"trainer.accelerator={accelerator}: this machine has none",
            fix="trainer=auto or trainer=cpu",
        )
