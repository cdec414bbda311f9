"""Fixed prompts, answered before, during and after training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lmft.models.sharding import is_sharded
from lmft.reporting.phase import phase


class Probes(Callback):
    """Asks the model fixed prompts before training and at each validation; writes samples.jsonl."""

    def __init__(self, prompts: list[Any], path: Path):
        self.prompts = prompts
        self.path = path
        # Called with step, stage and answers, on the first process.
        self.tell: Callable[[int, str, list[dict[str, Any]]], object] = lambda *_: None
        self.first: list[dict[str, Any]] = []
        self.latest: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the answers before training, for the table at the end."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the answers before training."""
        self.first = state_dict["first"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask before the first step, unless a validation before training has done so."""
        if trainer.global_step == 0 and not self.first:
            self.ask(pl_module, 0, "before")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask at each validation."""
        is_before = trainer.state.fn != "fit" and trainer.global_step == 0
        self.ask(pl_module, trainer.global_step, "before" if is_before else "validation")

    def ask(self, pl_module: Any, step: int, stage: str) -> None:
        """Append the model's answers to the file; the model answers in evaluation mode.

        The first process asks. Where devices share the weights, all of them take part in answering.

        Args:
            pl_module: the LightningModule.
            step: the optimizer step.
            stage: `before`, `validation` or `after`.
        """
        is_first = pl_module.global_rank == 0
        if not is_first and not is_sharded(pl_module.model):
            return
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        self.latest = []
        if self.prompts:
            with phase("answering the probes"):
                self.latest = pl_module.answer(self.prompts)
        for module, is_training in modes.items():
            module.training = is_training
        if stage == "before":
            self.first = self.latest
        if not is_first:
            return
        with self.path.open("a", encoding="utf-8") as file:
            for answer in self.latest:
                file.write(
                    json.dumps({"step": step, "stage": stage, **answer}, ensure_ascii=False) + "\n"
                )
        self.tell(step, stage, self.latest)
