"""Train for a few steps to measure something; nothing is written."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lightning import Callback, Trainer

from lmft.assembly.parts import Parts
from lmft.modules.base import LanguageModel
from lmft.training.trainer import build_trainer

# Options of the trainer that end a training, validate or record; here the number of steps decides alone.
_LEFT_OUT = (
    *("max_time", "max_tokens", "min_epochs", "min_steps", "fast_dev_run", "overfit_batches"),
    *("profiler", "reload_dataloaders_every_n_epochs"),
)


def brief_trainer(
    parts: Parts,
    callbacks: list[Callback],
    num_steps: int,
    changes: Mapping[str, Any] = MappingProxyType({}),
    folder: Path | None = None,
) -> Trainer:
    """Return a Trainer of the config that neither validates nor saves, and writes no files.

    Args:
        parts: the training.
        callbacks: the only ones; those of the config are left out.
        num_steps: optimizer steps.
        changes: options of the trainer.
        folder: where callbacks write, if these write files.
    """
    kept = {name: value for name, value in parts.config["trainer"].items() if name not in _LEFT_OUT}
    options = {
        **kept,
        "max_steps": num_steps,
        "max_epochs": -1,
        "limit_val_batches": 0,
        "val_check_interval": 1.0,
        "check_val_every_n_epoch": 1,
        "enable_checkpointing": False,
        **changes,
    }
    config = {**parts.config, "trainer": options, "callbacks": {}, "logger": {}}
    return build_trainer(config, folder, callbacks, [])


def train_briefly(
    parts: Parts,
    module: LanguageModel,
    callbacks: list[Callback],
    num_steps: int,
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Trainer:
    """Train for some steps with a `brief_trainer`, and return it."""
    trainer = brief_trainer(parts, callbacks, num_steps, changes)
    if module.compiling is not None and module.compiling.mode == "auto":
        module.compiling.is_recorded = False  # so few steps tell nothing of compiling
    may_record = module.step.may_record
    module.step.may_record = False  # recording takes the time of several steps
    try:
        trainer.fit(module, parts.datamodule())
    finally:
        module.step.may_record = may_record
    return trainer
