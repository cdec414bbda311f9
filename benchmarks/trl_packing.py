"""The peer: chats packed by TRL's SFTTrainer. It must not import lmft."""

import json
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from benchmarks.clock import Clock
from benchmarks.peer_data import build_model, load_tokenizer
from benchmarks.trainer import Ends, arguments
from benchmarks.workloads import Workload


def train(workload: dict[str, Any], folder: str, steps: int) -> dict[str, float]:
    """Train some steps on packs, with the loss on the answers."""
    job = Workload(**workload)
    tokenizer = load_tokenizer(f"{folder}/tokenizer")
    lines = Path(folder, "chats.jsonl").read_text("utf-8").splitlines()
    chats = [json.loads(line)["messages"] for line in lines]
    data = Dataset.from_list([{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats])
    noted: list[int] = []
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        given = arguments(output, job.rows, steps, packing=True, max_length=job.tokens)
        trainer = SFTTrainer(
            build_model(job, len(tokenizer)),
            SFTConfig(**given, gradient_checkpointing=False),
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=[Ends(clock, noted)],
        )
        collator = trainer.data_collator

        def counting(rows: list[dict[str, Any]]) -> Any:
            noted.append(sum(len(row["input_ids"]) for row in rows))
            return collator(rows)

        trainer.data_collator = counting
        trainer.train()
    return clock.figures()
