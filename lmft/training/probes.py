"""Fixed prompts, answered before, during and after training."""

import json
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Probes(Callback):
    """Asks the model at each validation and writes the answers to samples.jsonl."""

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

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Asks; the module stands in evaluation mode here."""
        if trainer.is_global_zero:
            is_before = trainer.state.fn != "fit" and trainer.global_step == 0
            self.ask(pl_module, trainer.global_step, "before" if is_before else "validation")

    def ask(self, pl_module: Any, step: int, stage: str) -> None:
        """Answers of the model as it is, appended to the file."""
        self.latest = pl_module.answer(self.prompts)
        self.first = self.first or self.latest
        with self.path.open("a", encoding="utf-8") as file:
            for answer in self.latest:
                file.write(json.dumps({"step": step, "stage": stage, **answer}, ensure_ascii=False) + "\n")
