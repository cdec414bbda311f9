"""Optimizer steps of lmft's own training, without validations, checkpoints and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from lmft.assembly.parts import Parts
from lmft.modules.base import LanguageModel
from lmft.training.optimizer import ScheduleConfig
from lmft.training.trainer import build_trainer
from lmft.verification.plain import Gradients

# Options of the trainer that end a training, validate or record; here the number of steps decides alone.
_LEFT_OUT = (
    *("max_time", "max_tokens", "min_epochs", "min_steps", "fast_dev_run", "overfit_batches"),
    *("profiler", "reload_dataloaders_every_n_epochs"),
)
_QUIET = {
    "max_epochs": -1,
    "limit_train_batches": 1.0,
    "limit_val_batches": 0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "log_every_n_steps": 1,
}


def trainer_for(
    parts: Parts, callbacks: Sequence[Callback], folder: Path | None = None, **options: Any
) -> Trainer:
    """Return the Trainer of a training's config, with some of its options changed."""
    kept = {name: value for name, value in parts.config["trainer"].items() if name not in _LEFT_OUT}
    trainer = {**kept, **_QUIET, **options}
    config = {**parts.config, "trainer": trainer, "callbacks": {}, "logger": {}}
    return build_trainer(config, folder, list(callbacks), [])


def step_gradient(
    parts: Parts, module: LanguageModel, accumulate: int, precision: str
) -> tuple[float, Gradients]:
    """Return loss and gradient of one optimizer step, as lmft's training gives it to its optimizer.

    It is neither clipped nor applied. The gradient is empty if it is not finite in float16, whose scaler
    skips such a step.

    Args:
        parts: the training, whose epoch is one step.
        module: its module; its number format changes if the precision is one of the weights.
        accumulate: micro-batches of the step.
        precision: as `trainer.precision`.
    """
    found: Gradients = {}
    names = {weight: name for name, weight in module.model.named_parameters()}

    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        weights = [weight for group in groups for weight in group["params"]]
        optimizer = torch.optim.SGD(weights, lr=0.0)

        def record(*_: Any) -> None:
            given = {names[weight]: weight.grad for weight in weights if weight.grad is not None}
            found.update({name: grad.detach().float().cpu().clone() for name, grad in given.items()})

        optimizer.register_step_post_hook(record)
        return optimizer

    make_before = module.make_optimizer
    schedule_before = module.schedule
    module.make_optimizer = make
    module.schedule = ScheduleConfig(name="constant")
    options = {
        "max_steps": 1,
        "accumulate_grad_batches": accumulate,
        "precision": precision,
        "gradient_clip_val": None,
    }
    loss = _Loss()
    try:
        trainer_for(parts, [loss], **options).fit(module, parts.datamodule())
    finally:
        module.make_optimizer = make_before
        module.schedule = schedule_before
    return loss.value, found


class _Loss(Callback):
    """Keeps the loss of the last optimizer step."""

    value = float("nan")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = pl_module.step
        step.outcomes.read()
        self.value = step.outcomes.latest.loss
