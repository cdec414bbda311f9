"""The newest numbers of a training, which its progress shows."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class LatestMetrics:
    """The newest numbers of a run, written by `Metrics` and read by `Progress`."""

    loss: float | None = None  # training loss in nats per target, the mean since it was logged last
    val_loss: float | None = None  # loss of the last validation, in nats per target
    tokens_per_second: float | None = None  # over all devices
    grad_norm: float | None = None  # of the last step's gradient, before clipping
    lr: float | None = None  # of the first group of weights
    memory_gb: float | None = None  # held now: of the GPU if there is one, else of this process
    losses: list[float] = field(default_factory=list)  # all values that `loss` has had

    def __str__(self) -> str:
        return "  ".join([*self.of_losses, *self.of_speed])

    @property
    def of_losses(self) -> list[str]:
        """The newest training loss and validation loss as texts."""
        parts = [("loss {:.3f}", self.loss), ("val {:.3f}", self.val_loss)]
        return _written(parts)

    @property
    def of_speed(self) -> list[str]:
        """The speed as a text, if it is known."""
        return _written([("{:,.0f} tokens/s", self.tokens_per_second)])

    @property
    def of_step(self) -> list[str]:
        """Gradient, learning rate and memory as texts, as far as they are known."""
        return _written(
            [
                ("gradient norm {:.3g}", self.grad_norm),
                ("lr {:.3g}", self.lr),
                ("{:.2f} GB", self.memory_gb),
            ]
        )


def _written(parts: Sequence[tuple[str, float | None]]) -> list[str]:
    return [form.format(value) for form, value in parts if value is not None]
