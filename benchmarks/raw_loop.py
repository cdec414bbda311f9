"""The peers without transformers' Trainer: a loop written by hand, and the same by plain Lightning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.clock import Clock, device
from benchmarks.peer_data import Counting, build_model, load_tokenizer, rows_of
from benchmarks.workloads import Workload


def model_and_loader(workload: Workload, folder: Path) -> tuple[Any, Any, list[int]]:
    """Return the model, a DataLoader with transformers' collator, and where that notes tokens."""
    tokenizer = load_tokenizer(f"{folder}/tokenizer")
    noted: list[int] = []
    rows: Any = rows_of(workload, folder, tokenizer)
    loader = DataLoader(
        rows,
        batch_size=workload.num_chats or workload.rows,
        shuffle=True,
        drop_last=True,
        collate_fn=Counting(workload, tokenizer, noted),
    )
    return build_model(workload, len(tokenizer)).train(), loader, noted


def optimizer_of(model: Any) -> torch.optim.Optimizer:
    """Return fused AdamW."""
    return torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.01, fused=True)


def endless(loader: Any) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the batches of one epoch after another."""
    while True:
        yield from loader


def train(workload: dict[str, Any], folder: str, steps: int, bf16: bool = True) -> dict[str, float]:
    """Train some steps: forward, backward, clip, AdamW, schedule."""
    model, loader, noted = model_and_loader(Workload(**workload), Path(folder))
    model = model.to(device())
    optimizer = optimizer_of(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    batches = endless(loader)
    clock = Clock()
    for step in range(steps):
        batch = {name: value.to(device(), non_blocking=True) for name, value in next(batches).items()}
        with torch.autocast(device(), torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        clock.step_ends(noted[step])
    return clock.figures()


def lightning(workload: dict[str, Any], folder: str, steps: int) -> dict[str, float]:
    """Train some steps in float32 by a LightningModule of a few lines."""
    from lightning import LightningModule, Trainer

    from benchmarks.lightning_clock import LightningClock

    model, loader, _ = model_and_loader(Workload(**workload), Path(folder))

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.model(**batch).loss

        def configure_optimizers(self) -> Any:
            optimizer = optimizer_of(self)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    clock = LightningClock(num_tokens=1)
    trainer = Trainer(
        accelerator=device().replace("cuda", "gpu"),
        devices=1,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(), loader)
    return clock.newest.figures()
