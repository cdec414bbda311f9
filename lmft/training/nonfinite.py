"""Non-finite loss or gradient: the step is not applied to the weights, and its examples are recorded."""

import math
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.system.files import write_json


class NonFiniteStepError(Exception):
    """The loss (nats per target) or gradient norm of a step is not finite; it was not taken."""

    def __init__(self, step: int, loss: float, norm: float):
        super().__init__(f"step {step}: loss {loss}, gradient norm {norm}")
        self.step = step
        self.loss = loss
        self.norm = norm


def non_finite_error(
    error: NonFiniteStepError, examples: list[dict[str, Any]], folder: Path
) -> UserError:
    """Write the step's examples to the run's folder; return the UserError that names the file."""
    path = folder / f"not-finite-step={error.step}.json"
    write_json(
        path,
        {"step": error.step, "loss": str(error.loss), "norm": str(error.norm), "examples": examples},
    )
    what = "gradient" if math.isfinite(error.loss) else "loss"
    numbers = f"loss {error.loss:.4g}, gradient norm {error.norm:.4g}"
    return UserError(
        f"step {error.step}: the {what} is not finite ({numbers})",
        f"its {len(examples)} examples are in {path}; "
        "weights and last checkpoint are those before the step",
        "a smaller optimizer.lr, trainer.precision=32-true, or nonfinite=skip to leave such steps out",
    )
