"""Gradients of models and of whole steps."""

import torch

from lmft.assembly import assemble
from lmft.training.callbacks.checkpoint import Checkpoints
from lmft.training.trainer import build_trainer


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def gradients_of_steps(folder, config, callbacks=(), loggers=()):
    """The gradients that each optimizer step of one epoch is given, by weight; and the module."""
    parts = assemble(config)
    torch.manual_seed(0)
    module = parts.module()
    steps, make_optimizer = [], module.make_optimizer

    def watched(groups):
        optimizer = make_optimizer(groups)
        names = {id(weight): name for name, weight in module.model.named_parameters()}
        optimizer.register_step_post_hook(
            lambda *_: steps.append(
                {names[id(p)]: p.grad.clone() for group in optimizer.param_groups for p in group["params"]}
            )
        )
        return optimizer

    module.make_optimizer = watched
    trainer = build_trainer(config, folder, [*callbacks, Checkpoints(folder, 1, 0)], list(loggers))
    data = parts.datamodule()
    trainer.fit(module, data)
    return steps, module, list(data.train_dataloader())
