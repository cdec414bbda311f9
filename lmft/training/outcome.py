"""Outcomes of optimizer steps, read from the device without waiting for its latest steps."""

import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lmft.system import signals
from lmft.training.nonfinite import NonFiniteStepError, Overflows, Place

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sent:
    """Facts about a step that the host knows when its numbers leave the device."""

    place: Place
    num_targets: int  # on this device
    is_left_out: bool = False
    has_overflowed: bool = False  # float16, whose scaler leaves the step out


@dataclass(frozen=True)
class Outcome:
    """An optimizer step on all devices: its loss, its gradient, and whether it was finite."""

    place: Place
    nats: float  # sum over the targets
    num_targets: int
    norm: float  # of the gradient, before clipping
    is_finite: bool

    @property
    def loss(self) -> float:
        """Nats per target."""
        return self.nats / max(1, self.num_targets)


class Outcomes:
    """The outcomes of a training's steps, in their order.

    The numbers of a step are copied to the host while the device continues. Callers read them
    later: all of them, or all but those of the latest steps.
    """

    def __init__(
        self,
        nonfinite: Literal["stop", "skip"],
        record: Callable[[float, int], object],
    ):
        """Create it.

        Args:
            nonfinite: what a step that is not finite does: `stop` raises NonFiniteStepError, `skip`
                counts it.
            record: gets the nats and the number of targets of each step that is finite.
        """
        self.nonfinite = nonfinite
        self.record = record
        self.overflows = Overflows()
        self.num_skipped = 0  # steps that were not finite, or left out
        self.latest: Outcome | None = None
        self.norm = 0.0  # of the latest step's gradient, before clipping
        self.signum = 0  # of a signal that a process of the training has got; 0: none
        self._pending: deque[tuple[Sent, Tensor, Any]] = deque()

    def begin(self) -> None:
        """Begin a training: forget the steps of an earlier one that was interrupted."""
        self._pending.clear()
        self.signum = 0

    def send(self, sent: Sent, numbers: Tensor) -> None:
        """Begin to copy a step's numbers to the host.

        Args:
            sent: what the host knows of the step.
            numbers: the norm of its gradient and its nats; of several devices also the number of targets
                and of each signal, all added up over the devices. [2] or [3 + S]
        """
        arrival = None
        if numbers.is_cuda:
            on_host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            on_host.copy_(numbers, non_blocking=True)
            arrival = torch.cuda.Event()
            arrival.record()
            numbers = on_host
        self._pending.append((sent, numbers, arrival))

    def read(self, most_pending: int = 0) -> None:
        """Read the outcomes of steps, the oldest first, until only so many are left unread.

        Raises: NonFiniteStepError if one of the steps was not finite.
        """
        while len(self._pending) > most_pending:
            sent, numbers, arrival = self._pending.popleft()
            if arrival is not None:
                arrival.synchronize()  # waits for that step alone, not for those after it
            self._settle(sent, numbers.cpu().numpy().tolist())

    def _settle(self, sent: Sent, numbers: Sequence[float]) -> None:
        """Record what became of a step. Raises: NonFiniteStepError."""
        norm, nats, *others = numbers
        num_targets = int(others[0]) if others else sent.num_targets
        # An infinite gradient in float16 is the scaler's matter.
        is_finite = math.isfinite(nats) and (sent.has_overflowed or math.isfinite(sum(numbers)))
        outcome = Outcome(sent.place, nats, num_targets, norm, is_finite)
        self.latest = outcome
        self.norm = norm
        received = zip(signals.SIGNALS, others[1:], strict=False)
        self.signum = self.signum or next((signum for signum, count in received if count), 0)
        if sent.is_left_out or is_finite:
            self.num_skipped += sent.is_left_out or sent.has_overflowed
            self.record(nats, num_targets)
            return
        if self.nonfinite == "stop":
            self._pending.clear()
            raise NonFiniteStepError(sent.place, outcome.loss, norm)
        message = "step %d is skipped: loss %g, gradient norm %g"
        log.warning(message, sent.place.step, outcome.loss, norm)
        self.num_skipped += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps and of overflows, and the gradient's norm."""
        return {
            "skipped": self.num_skipped,
            "overflows": self.overflows.state_dict(),
            "norm": self.norm,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts and the norm."""
        self.num_skipped = state_dict["skipped"]
        self.norm = state_dict.get("norm", 0.0)
        if "overflows" in state_dict:
            self.overflows.load_state_dict(state_dict["overflows"])
