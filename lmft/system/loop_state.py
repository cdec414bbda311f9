"""The state of Lightning's loops: their private attributes are read and set here, and nowhere else.

Without these lmft would need a training loop of its own. Written for lightning 2.6; a new minor version
needs a look at `loops/fit_loop.py`, `loops/training_epoch_loop.py` and `loops/evaluation_loop.py`.
"""

from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.loops.evaluation_loop import RestartStage


def micro_batch_number(trainer: Trainer) -> int:
    """Return the number of the current micro-batch, counted from 1 over all epochs."""
    return trainer.fit_loop.epoch_loop.batch_progress.total.ready


def micro_batch_position(trainer: Trainer) -> int:
    """Return the position of the current micro-batch in its epoch, counted from 0."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1


def next_micro_batch(trainer: Trainer) -> tuple[int, int]:
    """Return the epoch and the position in it of the micro-batch that comes next."""
    return divmod(micro_batch_number(trainer), int(trainer.num_training_batches))


def num_epochs(trainer: Trainer) -> float:
    """Return how many epochs have been trained, as a fraction."""
    return micro_batch_number(trainer) / trainer.num_training_batches


def num_steps_asked_for(trainer: Trainer, steps_per_epoch: int) -> int:
    """Return after how many optimizer steps the training ends; 0 if no number of steps ends it."""
    limits = []
    if trainer.max_steps not in (-1, None):
        limits.append(trainer.max_steps)
    if trainer.max_epochs not in (-1, None):
        limits.append(trainer.max_epochs * steps_per_epoch)
    return min(limits, default=0)


def is_accumulating(trainer: Trainer) -> bool:
    """Return whether the optimizer step has further micro-batches."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def is_last_step(trainer: Trainer) -> bool:
    """Return whether the step is the last of its epoch or of the training."""
    return trainer.fit_loop.epoch_loop._is_training_done


def is_last_batch_of_epoch(trainer: Trainer) -> bool:
    """Return whether the micro-batch is the last of its epoch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def end_after(trainer: Trainer, num_steps: int) -> None:
    """Make a training end after so many optimizer steps, as Trainer(max_steps=…) would."""
    trainer.fit_loop.epoch_loop.max_steps = num_steps


def training_is_complete(trainer: Trainer) -> bool:
    """Return, at the end of an epoch, whether the training has all its steps or epochs."""
    loop: Any = trainer.fit_loop
    if loop.max_steps != -1 and loop.epoch_loop.global_step >= loop.max_steps:
        return True
    num_epochs = loop.epoch_progress.current.processed
    return loop.max_epochs not in (None, -1) and num_epochs >= loop.max_epochs


def can_stop_early(trainer: Trainer) -> bool:
    """Return whether `min_steps` and `min_epochs` allow the training to end."""
    return trainer.fit_loop._can_stop_early


def validation_is_next(trainer: Trainer) -> bool:
    """Return, at the end of a batch, whether a validation comes before the next training batch."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    if not loop._should_check_val_fx(fetcher):
        return False
    loop.val_loop.setup_data()
    return not loop.val_loop.skip  # skipped where there is no validation text


def is_logging_step(trainer: Trainer) -> bool:
    """Return whether Lightning logs the metrics of this step. Call it at the end of a step."""
    return trainer._logger_connector.should_update_logs or bool(trainer.fast_dev_run)  # pyright: ignore


def count_epoch_from_its_start(trainer: Trainer) -> None:
    """Make Lightning count the epoch that begins when resuming at the end of an epoch.

    Otherwise Lightning would treat a checkpoint inside that epoch as one between two epochs.
    """
    loop = trainer.fit_loop
    progress = loop.epoch_progress.current
    if loop.restarted_mid_epoch and progress.completed == progress.ready:
        loop.reset_restart_stage()


def resumes_within_epoch(trainer: Trainer) -> bool:
    """Return, at the start of a training, whether it resumes between two steps of an epoch."""
    return trainer.fit_loop.restarted_mid_epoch


def begin_with_validation(trainer: Trainer) -> None:
    """Make a resumed training begin with the validation that was next when its checkpoint was saved."""
    val_loop = trainer.fit_loop.epoch_loop.val_loop
    val_loop.batch_progress.reset()
    val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION


def requeues_on_slurm(trainer: Trainer) -> bool:
    """Return whether Lightning's signal handlers requeue the SLURM job."""
    environment = trainer._accelerator_connector.cluster_environment
    return isinstance(environment, SLURMEnvironment) and environment.auto_requeue


def send_no_signals(trainer: Trainer) -> None:
    """Make Lightning's processes not tell each other of a SIGTERM before each micro-batch.

    That is a call that all wait for. Without Lightning's own handlers there is nothing to tell.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None


def replaces_samplers(trainer: Trainer) -> bool:
    """Return whether Lightning replaces the samplers of DataLoaders to give each device its share."""
    return bool(trainer._accelerator_connector.use_distributed_sampler) and trainer.world_size > 1


def callback_metrics(trainer: Trainer) -> dict[str, Any]:
    """Return the newest logged values, which callbacks monitor."""
    return trainer.callback_metrics
