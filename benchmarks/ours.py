"""lmft's side of a comparison: its whole command, called from Python."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.workloads import Workload


def options(workload: Workload, folder: Path) -> list[str]:
    """Return the arguments of a training on the text of `folder`, without validation and checkpoints."""
    shape = ",".join(f"{name}:{str(value).lower()}" for name, value in workload.shape.items())
    is_chat = workload.job == "chats"
    text = (
        [f"data=chat data.train={folder}/chats.jsonl"]
        if is_chat
        else [f"data=files data.train={folder}/text.txt"]
    )
    return [
        *(
            f"model={workload.family}",
            "model.from_scratch=true",
            f"model.architecture={workload.architecture}",
        ),
        *(f"++model.shape={{{shape}}}", f"model.tokenizer.name_or_path={folder}/tokenizer"),
        *text[0].split(),
        *(f"data.block_size={workload.tokens}", f"data.batch_size={workload.rows}"),
        *("data.validation_fraction=0", f"data.cache_dir={folder}/cache", "trainer.max_epochs=-1"),
    ]


def bare(folder: Path) -> list[str]:
    """Return the arguments of a training that only trains."""
    run = tempfile.mkdtemp(dir=folder)
    return [
        *("validate_before=false", "checkpoint.keep_last=0", "model.probes=[]", "data.probes=[]"),
        *(f"run.dir={run}", "run.name=bench"),
    ]


def train(workload: dict[str, Any], folder: str, steps: int, more: list[str]) -> dict[str, float]:
    """Train some steps with lmft's own defaults and these further arguments."""
    from lmft import api

    job = Workload(**workload)
    given = [*options(job, Path(folder)), *bare(Path(folder)), f"trainer.max_steps={steps}"]
    given += ["+callbacks.clock._target_=benchmarks.lightning_clock.LightningClock"]
    given += ["trust.targets=[benchmarks.lightning_clock.LightningClock]"]
    if job.num_inputs:
        given += [f"+callbacks.clock.num_tokens={job.num_inputs}"]
    api.train([*given, *more])
    from benchmarks.lightning_clock import LightningClock

    return LightningClock.newest.figures()
