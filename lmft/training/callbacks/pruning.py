"""End an unpromising trial of a search by its validation losses."""

from lightning import Callback, LightningModule, Trainer

from lmft.sweeps.trial import Pruned, TrialReference
from lmft.training.callbacks.metrics import Metrics
from lmft.training.validations import Monitor


def pruning_monitors() -> list[Monitor]:
    """Return the score that the trial of this process is pruned by; none if it is not pruned."""
    reference = TrialReference.of_environment()
    return [Monitor(f"sweep.pruner={reference.pruner}", "val/loss")] if reference else []


class Pruning(Callback):
    """Reports `val/loss` to the search after each validation, and raises `Pruned` if the search says so.

    A search counts a trial's validations, whatever the number of optimizer steps between them.

    Args:
        reference: where the search is.
        metrics: the callback that keeps the validations; Lightning has to call it before this one.
    """

    def __init__(self, reference: TrialReference, metrics: Metrics):
        self._reference = reference
        self._metrics = metrics

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report a validation of the training; those before and after it do not count."""
        if trainer.state.fn != "fit":
            return
        trained = [scores for scores in self._metrics.validations if scores["step"] > 0]
        loss = float(trained[-1]["loss"])
        must_end = trainer.is_global_zero and self._report(len(trained), loss)
        if trainer.strategy.broadcast(must_end):
            raise Pruned(trainer.global_step, loss)

    def _report(self, num_validations: int, loss: float) -> bool:
        """Report a loss, and return whether the trial has to end."""
        from lmft.sweeps.pruning import must_end  # it needs Optuna

        return must_end(self._reference, num_validations, loss)
