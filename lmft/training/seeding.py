"""Seed the random numbers of a step."""

import torch


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU's and the device's generators: the same random numbers as after torch.manual_seed.

    torch.manual_seed costs 0.3 ms a call, 300 times as much: for each kind of device that is not in use
    it records the Python stack.

    Args:
        seed: the seed.
        device: where the training computes.
    """
    if device.type not in ("cpu", "cuda", "mps"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)
    if device.type == "mps":
        torch.mps.manual_seed(seed)
