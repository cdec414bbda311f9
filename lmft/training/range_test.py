"""Evaluate a learning rate range test: which rate to train with, and why."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DIVERGED_BY = 1.0  # nats per target above the loss before the first step
_FEWEST_POINTS = 10


@dataclass(frozen=True)
class RangeTest:
    """The losses of a training whose learning rate rises exponentially (Smith 2017)."""

    rates: list[float]
    """Of each optimizer step."""
    losses: list[float]
    """Nats per target of the step that follows."""
    first_loss: float
    """Before any step."""
    has_diverged: bool

    @property
    def smoothed(self) -> np.ndarray:
        """The losses, each the mean of its neighbourhood; at the ends of half of one. [N]"""
        reach = self._window // 2
        losses = np.asarray(self.losses)
        return np.array(
            [losses[max(0, i - reach) : i + reach + 1].mean() for i in range(len(self.losses))]
        )

    @property
    def _window(self) -> int:
        return max(3, len(self.losses) // 10)

    def suggestion(self) -> tuple[float | None, str]:
        """Return the rate at which the smoothed loss falls fastest, and the reason.

        None if the loss does not fall by more than chance; the reason says what to change.
        """
        if len(self.losses) < _FEWEST_POINTS:
            what = f"no suggestion: only {len(self.losses)} steps were taken before the loss diverged"
            return None, f"{what}; a smaller tune.min_lr or a larger tune.num_steps takes more"
        smoothed = self.smoothed
        lowest = int(np.argmin(smoothed))
        # How far means of a neighbourhood vary, before the training begins to diverge.
        around = (np.asarray(self.losses) - smoothed)[: max(lowest + 1, self._window)]
        noise = float(np.std(around)) / math.sqrt(self._window)
        fall = float(smoothed[0] - smoothed[lowest])
        if lowest == 0 or fall <= 3 * noise:
            what = "no suggestion: the loss falls by no more than it varies from step to step"
            return None, f"{what} ({fall:.3g} nats); a larger tune.num_steps shows smaller falls"
        slopes = np.gradient(smoothed, np.log10(self.rates))
        steepest = int(np.argmin(slopes[: lowest + 1]))
        reason = (
            f"the loss falls fastest at {self.rates[steepest]:.2g} "
            f"({-slopes[steepest]:.3g} nats per decade) and is lowest at {self.rates[lowest]:.2g}"
        )
        if self.has_diverged:
            reason += f"; it diverges from {self.rates[-1]:.2g} on"
        elif lowest == len(self.rates) - 1:
            reason += "; it still falls at tune.max_lr: a larger one shows where that ends"
        return float(f"{self.rates[steepest]:.1e}"), reason


def rising_rates(low: float, high: float, num_steps: int) -> list[float]:
    """Return learning rates from `low` to `high`, each the same factor above the one before."""
    return [float(rate) for rate in np.geomspace(low, high, num_steps)]


def has_diverged(losses: Sequence[float], first_loss: float) -> bool:
    """Return whether the latest losses lie a nat above the first one, or are not finite."""
    latest = losses[-3:]
    return not math.isfinite(latest[-1]) or (
        len(latest) == 3 and min(latest) > first_loss + _DIVERGED_BY
    )
