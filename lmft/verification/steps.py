"""Optimizer steps of lmft's own training, without validations, checkpoints and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from lmft.assembly.briefly import brief_trainer
from lmft.assembly.parts import Parts
from lmft.modules.base import LanguageModel
from lmft.training.optimizer import ScheduleConfig
from lmft.verification.plain import Gradients

_QUIET = {
    "limit_train_batches": 1.0,
    "enable_progress_bar": False,
    "log_every_n_steps": 1,
}


def trainer_for(
    parts: Parts,
    callbacks: Sequence[Callback],
    num_steps: int,
    folder: Path | None = None,
    **options: Any,
) -> Trainer:
    """Return a Trainer of a training's config that makes some steps on all examples, or validates.

    Arguments as of `brief_trainer`; options are those of the trainer.
    """
    return brief_trainer(parts, list(callbacks), num_steps, {**_QUIET, **options}, folder)


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
        "accumulate_grad_batches": accumulate,
        "precision": precision,
        "gradient_clip_val": None,
    }
    loss = _Loss()
    try:
        trainer_for(parts, [loss], 1, **options).fit(module, parts.datamodule())
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
