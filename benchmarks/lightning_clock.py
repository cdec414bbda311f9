"""The clock as a callback of Lightning."""

from typing import Any

import lightning

from benchmarks.clock import Clock


class LightningClock(lightning.Callback):
    """Notes the ends of a training's steps; `newest` is the clock of the latest one."""

    newest: Clock

    def __init__(self, num_tokens: int | None = None) -> None:
        self.num_tokens = num_tokens
        LightningClock.newest = Clock()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note it, with the number of tokens that was given, or else that of lmft's batch."""
        self.newest.step_ends(self.num_tokens or batch.num_tokens)
