"""What Lightning's loops know and do not tell: its private counters are read here and nowhere else."""

import logging

from lightning import Trainer

log = logging.getLogger("lmft")


def amid_a_step(trainer: Trainer) -> bool:
    """Whether further micro-batches belong to the optimizer step."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def validation_follows(trainer: Trainer) -> bool:
    """At a training batch's end: whether a validation comes before the next one. Without text for it none ever does."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert fetcher is not None
    if not loop._should_check_val_fx(fetcher):
        return False
    loop.val_loop.setup_data()
    return not loop.val_loop.skip
