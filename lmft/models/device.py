"""The device that a model runs on outside a training."""

import torch

from lmft.errors import UserError


def device_named(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if there is one.

    Raises: UserError if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:150]
        raise UserError(f"there is no device '{name}' here", reason, "device=auto") from error
    return device
