"""Rewrite the run's report while it trains."""

import logging
import time
from collections.abc import Callable

from lightning import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)
SHARE = 0.02
"""Of the time of a training, at most, that goes into rewriting its report."""


class Report(Callback):
    """Rewrites report.html after each validation.

    If validations follow each other so fast that this would take more than `SHARE` of the time, it is
    left out after some of them. The page is written again when the run ends.
    """

    def __init__(self, write: Callable[[], object]):
        """Create the callback. write: writes the report; called on the first process only."""
        self.write = write
        self._seconds = 0.0  # that writing has taken, the last time
        self._written = float("-inf")  # when, by time.monotonic

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report, unless it is too soon."""
        now = time.monotonic()
        if not trainer.is_global_zero or now - self._written < self._seconds / SHARE:
            return
        try:
            self.write()
        except Exception as error:  # a page is not worth the training
            log.warning("the report could not be written: %s", error, exc_info=True)
        self._written = time.monotonic()
        self._seconds = self._written - now
