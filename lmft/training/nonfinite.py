"""Numbers that are none: a step whose loss or gradient is not finite never reaches the weights."""

import math
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.system.files import write_json


class NonFiniteStepError(Exception):
    """The loss (nats per target) or the gradient's norm of a step is infinite or no number; it was not taken."""

    def __init__(self, step: int, loss: float, norm: float):
        super().__init__(f"step {step}: loss {loss}, gradient norm {norm}")
        self.step, self.loss, self.norm = step, loss, norm


def non_finite_error(error: NonFiniteStepError, examples: list[dict[str, Any]], folder: Path) -> UserError:
    """Writes the step's examples to the run's folder; returns what to tell the user."""
    path = folder / f"not-finite-step={error.step}.json"
    write_json(
        path, {"step": error.step, "loss": str(error.loss), "norm": str(error.norm), "examples": examples}
    )
    what = "gradient" if math.isfinite(error.loss) else "loss"
    return UserError(
        f"step {error.step}: the {what} is not finite (loss {error.loss:.4g}, gradient norm {error.norm:.4g})",
        f"its {len(examples)} examples are in {path}; the weights and the last checkpoint are those of before",
        "a smaller optimizer.lr, trainer.precision=32-true, or nonfinite=skip to leave such steps out",
    )
