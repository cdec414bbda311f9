"""Measure a training: write metrics.csv, keep the validation passes and the totals of a run."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lmft.data.batch import Batch
from lmft.system import loop_state
from lmft.training.latest_metrics import LatestMetrics
from lmft.training.memory import held_gb
from lmft.training.metrics_file import MetricsFile, losses_in, read_rows
from lmft.training.scores import logged_scores


class Metrics(Callback):
    """Writes metrics.csv, logs its numbers, keeps validations and totals for metrics.json.

    A row of training has the mean loss since the last row, the norm of the step's gradient before
    clipping, the tokens and targets that all devices have seen since the training began, the rates, the
    speed and the memory held. The steps after the last row, if any, get a row when training ends.

    Numbers are copied from the device only when a row is due.
    """

    def __init__(self, live: LatestMetrics, file: MetricsFile | None = None):
        """Create the callback.

        Args:
            live: gets the newest numbers, for the progress bar.
            file: metrics.csv of the run, if there is one.
        """
        self.live = live
        self.file = file
        # {"step", "epoch", loss, perplexity, accuracy, …} of each pass.
        self.validations: list[dict[str, Any]] = []
        self.totals = {"tokens": 0, "targets": 0, "padding": 0, "seconds": 0.0}
        self._counts = {"tokens": 0, "padding": 0}  # of this rank, since the last row
        self._num_steps = 0  # of this process, since the last row
        self._tokens_before = 0  # those since the last row that an earlier process counted
        # Column -> number of the parameter group whose learning rate it has.
        self._rates = {"lr": 0}
        # Times of time.perf_counter.
        self._training_start = (
            0.0  # start of training, or its continuation after a validation; 0: not training
        )
        self._row_start = 0.0  # end of the last row, moved forward by the time of validations
        self._pause_start = 0.0
        self._is_resumed = False
        self._epoch = 0  # of the last micro-batch; Lightning's counter may be past it when training ends

    @property
    def last_validated_step(self) -> int | None:
        """The optimizer step of the latest validation; None before the first."""
        return self.validations[-1]["step"] if self.validations else None

    def state_dict(self) -> dict[str, Any]:
        """Return the validations so far, the totals, and the counts since the last row."""
        self._module.step.outcomes.read()
        training_loss = self._module.training_loss
        return {
            "validations": self.validations,
            "totals": self.totals,
            "counts": {**self._over_ranks(), "targets": training_loss.num_targets},
            "nats": training_loss.nats,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state; the first rank gets the counts of all."""
        self.validations = state_dict["validations"]
        self.totals = state_dict["totals"]
        self._is_resumed = True
        self._tokens_before = state_dict["counts"]["tokens"]
        self._epoch = state_dict.get("epoch", 0)
        counts = dict(state_dict["counts"])
        self._module.training_loss.add(state_dict["nats"], counts.pop("targets"))
        if self._trainer.is_global_zero:
            self._counts = counts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep trainer and module for `state_dict`."""
        self._trainer = trainer
        self._module: Any = pl_module

    def _over_ranks(self) -> dict[str, int]:
        """Return the counts since the last row, summed over all ranks."""
        if self._trainer.world_size == 1:
            return self._counts
        device = self._trainer.strategy.root_device
        mine = torch.tensor([*self._counts.values()], dtype=torch.float64, device=device)
        counts = self._trainer.strategy.reduce(mine, reduce_op="sum").tolist()
        return {name: int(count) for name, count in zip(self._counts, counts, strict=True)}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clocks. On resume, restore the last validation's scores for callbacks that read
        them.
        """
        now = time.perf_counter()
        self._training_start = now
        self._row_start = now
        self._rates = _rate_columns(_groups(trainer))
        if self.file is not None and not self._is_resumed:
            self.file.add_columns(list(self._rates))
        if self._is_resumed and self.file is not None:
            self.live.losses = losses_in(read_rows(self.file.path))
        if self._is_resumed and self.last_validated_step:
            latest = self.validations[-1]
            logged = logged_scores(latest).items()
            scores = {name: torch.tensor(score, dtype=torch.float64) for name, score in logged}
            trainer.callback_metrics.update(scores)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the batch; write a row when one is due and the step is complete."""
        self._epoch = trainer.current_epoch
        self._counts["tokens"] += batch.num_tokens
        self._counts["padding"] += batch.num_padding
        if loop_state.is_accumulating(trainer):
            return
        module: Any = pl_module
        self._num_steps += 1
        loss = module.log_training_loss()
        if loss is not None:
            row = self._end_step_row(trainer, module, loss)
            del row["train/loss"]  # logged by the module
            module.log_numbers({**row, **_position(trainer)})

    def _end_step_row(self, trainer: Trainer, module: Any, loss: float) -> dict[str, float]:
        """Append the row of the steps since the last one, and return its values."""
        counts = self._end_row(module)
        now = time.perf_counter()
        seconds = now - self._row_start
        speed = (counts["tokens"] - self._tokens_before) / seconds
        self.live.loss = loss
        self.live.tokens_per_second = speed
        row = {"train/loss": loss, "tokens_per_second": speed, **self._learning_rates(trainer)}
        row |= {
            "train/grad_norm": module.step.outcomes.norm,
            "train/tokens": self.totals["tokens"],
            "train/targets": self.totals["targets"],
            "train/seconds_per_step": seconds / max(1, self._num_steps),
        }
        self.live.losses.append(loss)
        self.live.grad_norm = row["train/grad_norm"]
        self.live.lr = row["lr"]
        memory = held_gb(trainer.strategy.root_device)
        if memory is not None:
            row["memory_gb"] = memory
            self.live.memory_gb = memory
        self._row_start = now
        self._num_steps = 0
        self._tokens_before = 0
        self._append(trainer, row, self._epoch)
        return row

    def _learning_rates(self, trainer: Trainer) -> dict[str, float]:
        groups = _groups(trainer)
        return {column: float(groups[number]["lr"]) for column, number in self._rates.items()}

    def _append(self, trainer: Trainer, values: dict[str, Any], epoch: int) -> None:
        if self.file is not None:
            self.file.append({"step": trainer.global_step, "epoch": epoch, **values})

    def _end_row(self, module: Any) -> dict[str, int]:
        counts = self._over_ranks()
        for name, count in counts.items():
            self.totals[name] += count
        self.totals["targets"] += module.training_loss.num_taken
        self._counts = dict.fromkeys(counts, 0)
        return counts

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clocks: validation does not count as training time."""
        module: Any = pl_module
        module.step.outcomes.read()
        self._pause()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the step, so that loggers show the scores where metrics.csv does."""
        module: Any = pl_module
        module.log_numbers(_position(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the scores and write their row."""
        module: Any = pl_module
        scores = module.latest_scores
        self.live.val_loss = scores["loss"]
        self.validations.append({"step": trainer.global_step, "epoch": trainer.current_epoch, **scores})
        self._append(trainer, logged_scores(scores), trainer.current_epoch)
        now = time.perf_counter()
        self._row_start += now - self._pause_start
        self._training_start = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clocks."""
        self._pause()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of the steps after the last one.

        Not when training ends, since resuming a training that has reached its end does not train.
        """
        if not self._over_ranks()["tokens"]:
            return
        module: Any = pl_module
        self._rates = _rate_columns(_groups(trainer))  # a finished training does not start again
        row = self._end_step_row(trainer, module, module.training_loss.take())
        for logger in trainer.loggers:
            if logger is not self.file:
                logger.log_metrics({**row, "epoch": self._epoch}, trainer.global_step)
                logger.save()

    def _pause(self) -> None:
        self._pause_start = time.perf_counter()
        if self._training_start:
            self.totals["seconds"] += self._pause_start - self._training_start
        self._training_start = 0.0


def _position(trainer: Trainer) -> dict[str, float]:
    """Return step and epoch, under the names that Lightning's loggers use as the x axis."""
    return {"step": float(trainer.global_step), "epoch": float(trainer.current_epoch)}


def _groups(trainer: Trainer) -> list[dict[str, Any]]:
    """Return the parameter groups of all optimizers."""
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


def _rate_columns(groups: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the columns of learning rates, and the number of the group that each is of.

    `lr` is the first group's. Groups with other rates at the start get `lr/NAME`, or `lr/NUMBER`
    without a name; groups of the same rate share a column.
    """
    columns = {"lr": 0}
    known = {_start_rate(groups[0])}
    for number, group in enumerate(groups):
        if _start_rate(group) not in known:
            known.add(_start_rate(group))
            columns[f"lr/{group.get('name', number)}"] = number
    return columns


def _start_rate(group: dict[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))
