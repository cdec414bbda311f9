"""Fixed prompts, answered before, during and after training."""

import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Probes(Callback):
    """Asks the model before training and at each validation, and writes the answers to samples.jsonl."""

    def __init__(self, prompts: list[Any], path: Path):
        self.prompts, self.path = prompts, path
        self.first: list[dict[str, Any]] = []
        self.latest: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """The first answers, for the table at the end."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores them."""
        self.first = state_dict["first"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask before the first step, where no validation before training has done so."""
        if trainer.global_step == 0 and not self.first and trainer.is_global_zero:
            self.ask(pl_module, 0, "before")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask at each validation."""
        if trainer.is_global_zero:
            is_before = trainer.state.fn != "fit" and trainer.global_step == 0
            self.ask(pl_module, trainer.global_step, "before" if is_before else "validation")

    def ask(self, pl_module: Any, step: int, stage: str) -> None:
        """Append the model's answers to the file; the model is in evaluation mode for as long as that takes."""
        modes = {module: module.training for module in pl_module.modules()}
        pl_module.eval()
        self.latest = pl_module.answer(self.prompts) if self.prompts else []
        for module, training in modes.items():
            module.training = training
        if stage == "before":
            self.first = self.latest
        with self.path.open("a", encoding="utf-8") as file:
            for answer in self.latest:
                file.write(json.dumps({"step": step, "stage": stage, **answer}, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The answers of a samples.jsonl; none where nothing was asked."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
