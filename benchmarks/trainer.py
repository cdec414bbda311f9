"""The peer: the same training by transformers.Trainer, with its collators. It must not import lmft."""

import tempfile
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.clock import Clock, device
from benchmarks.peer_data import Counting, build_model, load_tokenizer, rows_of
from benchmarks.workloads import Workload


class Ends(TrainerCallback):
    """Notes the end of each step."""

    def __init__(self, clock: Clock, noted: list[int]) -> None:
        self.clock = clock
        self.noted = noted

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note it, with the tokens of the step's batch."""
        self.clock.step_ends(self.noted[len(self.clock.ends)])


def arguments(folder: str, rows: int, steps: int, **more: Any) -> dict[str, Any]:
    """Return the arguments of a Trainer that only trains."""
    common = {
        "output_dir": folder,
        "per_device_train_batch_size": rows,
        "max_steps": steps,
        "bf16": True,
        "use_cpu": device() == "cpu",
        "learning_rate": 2e-5,
        "weight_decay": 0.01,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": 0,
    }
    return common | more


def train(workload: dict[str, Any], folder: str, steps: int, more: dict[str, Any]) -> dict[str, float]:
    """Train some steps with bf16=True and these further arguments."""
    job = Workload(**workload)
    tokenizer = load_tokenizer(f"{folder}/tokenizer")
    model = build_model(job, len(tokenizer))
    noted: list[int] = []
    data = rows_of(job, Path(folder), tokenizer)
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model,
            TrainingArguments(**arguments(output, job.num_chats or job.rows, steps, **more)),
            train_dataset=data,
            data_collator=Counting(job, tokenizer, noted),
            callbacks=[Ends(clock, noted)],
        )
        if trainer.args.dataloader_num_workers:  # whose notes are lost
            noted.extend([job.rows * job.tokens] * steps)
        trainer.train()
    return clock.figures()
