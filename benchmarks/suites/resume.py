"""The cost of resuming and of a checkpoint: seconds and bytes.

A run's folder is put into the state after a kill, and the same command runs again: from the start of its
process to the end of its first new step. `deep` resumes at 10% and 90% of an epoch of ten million blocks
of two tokens.
"""

import json
import random
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import made_up
from benchmarks.figures import compared, rounded, value, values_of
from benchmarks.ours import options
from benchmarks.process import finished
from benchmarks.session import Session
from benchmarks.workloads import CPU, TINY, Workload

COMMAND = "python -m benchmarks resume"
SECTION = "Saving and resuming"
NUM_BLOCKS = 10_000_000
DEEP = TINY[0]


def run(session: Session) -> None:
    """Measure both."""
    deep(session)
    saving(session)


def saves_each_step(folder: Path, name: str, steps: int) -> list[str]:
    """Return the arguments of a training that saves after each step."""
    return [
        *("model.probes=[]", "data.probes=[]", f"run.dir={folder / 'runs'}", f"run.name={name}"),
        *(f"trainer.max_steps={steps}", "validate_before=false", "trainer.log_every_n_steps=1"),
        *("checkpoint.every_n_steps=1", "checkpoint.keep_last=2"),
    ]


def train(session: Session, arguments: list[str]) -> None:
    """Train by the command; in tiny sizes in this process."""
    if session.is_tiny:
        from lmft import api

        api.train(arguments)
    else:
        finished([sys.executable, "-m", "lmft.train", *arguments])


def killed_after(step: int, run: Path, copy: Path) -> Path:
    """Copy a run as if it had been killed after a step; return its only checkpoint."""
    shutil.rmtree(copy, ignore_errors=True)
    kept = f"step={step}.ckpt"
    shutil.copytree(
        run, copy, ignore=shutil.ignore_patterns("model", "metrics.json", "last.ckpt*", "best.ckpt*")
    )
    for path in (copy / "checkpoints").iterdir():
        if not path.name.startswith(kept):
            path.unlink()
    return copy / "checkpoints" / kept


def rerun(session: Session, folder: Path, name: str, given: list[str]) -> dict[str, float]:
    """Resume a run for one step, which ends when metrics.csv is last written; `epochs`: the position."""
    run = folder / "runs" / name
    start = time.time()
    train(session, [*given, *saves_each_step(folder, name, 2), "resume=must"])
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    return {"rerun_s": (run / "metrics.csv").stat().st_mtime - start, "epochs": epochs}


def deep(session: Session) -> None:
    """Measure resuming at two positions of a long epoch."""
    folder = session.folder / "deep"
    folder.mkdir()
    num_blocks = 10_000 if session.is_tiny else NUM_BLOCKS
    made_up.write(folder, "masked", DEEP.vocab_size, 0, 0, DEEP.longest)
    draw = random.Random(0)
    lines = [" ".join(draw.choices(made_up.words("masked", DEEP.vocab_size), k=998)) for _ in range(100)]
    with (folder / "text.txt").open("w") as file:
        file.writelines(draw.choice(lines) + "\n" for _ in range(2 * num_blocks // 1000))
    given = [each for each in options(DEEP, folder) if not each.startswith(("data.block", "data.batch"))]
    given += ["data.block_size=2", "data.batch_size=16"]
    train(session, [*given, *saves_each_step(folder, "first", 2)])

    def at(share: float) -> dict[str, float]:
        copy = folder / "runs" / f"at{share}"
        move(killed_after(1, folder / "runs" / "first", copy), int(share * num_blocks / 16))
        found = rerun(session, folder, copy.name, given)
        if abs(found["epochs"] - share) > 0.01:
            raise ValueError(f"resumed at {found['epochs']} instead of {share}")
        return found

    early, late = "the time at 10%", "at 90% of an epoch"
    rounds = session.in_turns({early: lambda: at(0.1), late: lambda: at(0.9)})
    figure = (
        f"from the start of the resuming command to its first new step, {late} of {num_blocks:,} blocks"
    )
    session.row(SECTION, figure, COMMAND, compared(rounds, "rerun_s", "s", late))


def move(checkpoint: Path, position: int) -> None:
    """Set the number of finished micro-batches in a checkpoint of the first epoch."""
    import torch

    from lmft.runs.checkpoint_io import AtomicCheckpointIO

    content = torch.load(checkpoint, weights_only=True)
    progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), position))
    content["DataModule"]["position"] = position
    AtomicCheckpointIO().save_checkpoint(content, checkpoint)


def saving(session: Session) -> None:
    """Measure resuming DistilBERT, and what a save takes."""
    workload: Workload = TINY[0] if session.is_tiny else CPU[0]
    folder = session.folder / "saving"
    folder.mkdir()
    made_up.write(
        folder,
        workload.job,
        workload.vocab_size,
        12 * workload.rows * workload.tokens,
        0,
        workload.longest,
    )
    given = options(workload, folder)
    train(session, [*given, *saves_each_step(folder, "first", 2)])
    first = folder / "runs" / "first"
    size = (first / "checkpoints" / "step=1.ckpt").stat().st_size / 1e6

    def again() -> dict[str, float]:
        killed_after(1, first, folder / "runs" / "again")
        return rerun(session, folder, "again", given)

    def saves() -> dict[str, float]:
        shutil.rmtree(folder / "runs" / "saves", ignore_errors=True)
        arguments = [*given, *saves_each_step(folder, "saves", 6)]
        return session.side("suites.resume:timed_saves", arguments=arguments)()

    rounds = session.in_turns({"rerun": again, "saving": saves})
    name = workload.name.split(",")[0]
    for figure, side, key, unit in (
        (
            f"from the start of the resuming command to its first new step, {name}",
            "rerun",
            "rerun_s",
            "s",
        ),
        (f"saving {name} with AdamW's moments, {rounded(size):g} MB", "saving", "save_s", "s"),
        ("its share of the time at `checkpoint.every_n_steps=500`", "saving", "share", "%"),
    ):
        values = values_of(rounds, side, key)
        session.row(SECTION, figure, COMMAND, [value(values, unit)] if values else [])


def timed_saves(arguments: list[str]) -> dict[str, float]:
    """Train in this process; return how long a save takes, and its share of 500 steps and one save."""
    from lightning import Trainer

    from benchmarks.lightning_clock import LightningClock
    from lmft import api

    seconds: list[float] = []
    save: Any = Trainer.save_checkpoint

    def timed(*args: Any, **kwargs: Any) -> None:
        start = time.perf_counter()
        save(*args, **kwargs)
        seconds.append(time.perf_counter() - start)

    clock = "benchmarks.lightning_clock.LightningClock"
    Trainer.save_checkpoint = timed
    try:
        api.train([*arguments, f"+callbacks.clock._target_={clock}", f"trust.targets=[{clock}]"])
    finally:
        Trainer.save_checkpoint = save
    save_s = statistics.median(seconds)
    step_s = max(LightningClock.newest.figures()["step_s"] - save_s, 1e-6)  # which has a save in it
    return {"save_s": save_s, "share": 100 * save_s / (500 * step_s + save_s)}
