"""Non-finite loss or gradient: the step is not applied to the weights, and its examples are recorded."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmft.errors import UserError
from lmft.system.files import write_json

log = logging.getLogger(__name__)
_WITHOUT_FLOAT16 = (
    "another run.name with trainer.precision=bf16-mixed or 32-true; or a smaller optimizer.lr"
)


@dataclass(frozen=True)
class Place:
    """The place of an optimizer step in a training."""

    step: int  # counted from 1
    epoch: int
    positions: tuple[int, ...]  # of its micro-batches in the epoch


class NonFiniteStepError(Exception):
    """The loss (nats per target) or gradient norm of a step is not finite; it was not taken."""

    def __init__(self, place: Place, loss: float, norm: float):
        super().__init__(f"step {place.step}: loss {loss}, gradient norm {norm}")
        self.place = place
        self.step = place.step
        self.loss = loss
        self.norm = norm


class Overflows:
    """Counts the steps whose gradient is infinite in float16; its scaler leaves them out.

    It halves the scale of the loss each time, so that a few such steps at the beginning are usual.
    """

    most_in_a_row = 20
    """Overflows in a row after which a scale below 1 ends the training: no scale would do."""

    def __init__(self) -> None:
        self.total = 0
        self.in_a_row = 0

    @property
    def is_latest(self) -> bool:
        """Return whether the latest step overflowed."""
        return self.in_a_row > 0

    def count(self, has_overflowed: bool, step: int, scale: Callable[[], float]) -> None:
        """Count a step.

        Args:
            has_overflowed: whether the scaler has found an infinite gradient.
            step: its number.
            scale: returns the scaler's scale, by which the loss was multiplied.

        Raises: UserError if no scale is small enough.
        """
        if not has_overflowed:
            self.in_a_row = 0
            return
        self.total += 1
        self.in_a_row += 1
        log.info("step %d overflows float16: it changes no weights, and the scale is halved", step)
        if self.in_a_row >= self.most_in_a_row and scale() < 1:
            raise UserError(
                f"step {step}: the gradient overflows float16, as in the {self.in_a_row - 1} steps "
                f"before, with every loss scale so far ({scale():.3g} now)",
                "trainer.precision=16-mixed",
                _WITHOUT_FLOAT16,
            )

    def check_end(self, num_steps: int) -> None:
        """Raise UserError if all steps of a training have overflowed: its weights are as before it."""
        if num_steps and self.total >= num_steps:
            what = f"all {num_steps} steps overflowed float16: the training has changed no weights"
            raise UserError(what, "trainer.precision=16-mixed", _WITHOUT_FLOAT16)

    def state_dict(self) -> dict[str, int]:
        """Return the counts."""
        return {"total": self.total, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Restore the counts."""
        self.total = state_dict["total"]
        self.in_a_row = state_dict["in_a_row"]


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
