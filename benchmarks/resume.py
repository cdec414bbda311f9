"""The cost of resuming a run, and of saving checkpoints: seconds and bytes.

    python benchmarks/resume.py deep [--rounds 5]
    python benchmarks/resume.py imdb --text IMDB_FOLDER --tokenizer FOLDER [--rounds 3]

The benchmark puts a run's folder into the state after a kill, and runs the same command again. It measures the time
from the start of the process to the end of the first new step.

deep: an epoch of ten million blocks, killed at 10% and at 90%; the ratio should be 1. Blocks have 2 tokens and the
model is tiny, as only the position matters. The checkpoint is that of the first step, with its counts of micro-batches
set to the position.

imdb: DistilBERT's shape with random weights, 16 blocks of 128 tokens a step. Prints

    rerun_s        from the start of the process to the end of the first new step
    save_s         how long training waits for a save of the model and AdamW's moments, fsync included
    step_s         how long a step takes without a save
    save_steps     save_s / step_s; with checkpoint.every_n_steps=500, saving takes a 500th of it of the time
    checkpoint_mb  size of a checkpoint
    model_mb       size of the exported weights; a checkpoint is three times as large, with AdamW's two moments
"""

import argparse
import csv
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from turns import compare, in_turns, last_json

NUM_BLOCKS, BATCH_SIZE = 10_000_000, 16
WORDS = ["a", "film", "that", "is", "good", "and", "one", "which", "was", "not", "as", "bad", "the", "other"]


def command(folder: Path, name: str, steps: int, options: list[str]) -> list[str]:
    """The arguments of a training of `steps` steps that saves after each step."""
    return [
        *("model.probes=[]", "data.probes=[]", f"data.cache_dir={folder / 'cache'}", f"run.dir={folder / 'runs'}"),
        *(f"run.name={name}", f"trainer.max_steps={steps}", "trainer.log_every_n_steps=1", "validate_before=false"),
        *("data.validation_fraction=0", "checkpoint.every_n_steps=1", "checkpoint.keep_last=2", *options),
    ]


def train(arguments: list[str]) -> None:
    """`python -m lmft.train`."""
    done = subprocess.run([sys.executable, "-m", "lmft.train", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}\n{done.stderr[-2000:]}")


def killed_after(step: int, run: Path, copy: Path) -> Path:
    """Copy a run as if it had been killed after a step; return its only checkpoint."""
    shutil.rmtree(copy, ignore_errors=True)
    kept = f"step={step}.ckpt"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", "metrics.json", "last.ckpt*", "best.ckpt*"))
    for path in (copy / "checkpoints").iterdir():
        if not path.name.startswith(kept):
            path.unlink()
    return copy / "checkpoints" / kept


def rerun(folder: Path, name: str, steps: int, options: list[str]) -> dict[str, float]:
    """Resume a run for one step, whose end is when metrics.csv is last written. `epochs` is the position."""
    run = folder / "runs" / name
    start = time.time()
    train(command(folder, name, steps, [*options, "resume=must"]))
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    return {"rerun_s": (run / "metrics.csv").stat().st_mtime - start, "epochs": epochs}


def deep(folder: Path, rounds: int) -> None:
    """Resume at two positions of a long epoch."""
    from lmft.models.loading.vocabulary import train_vocabulary

    train_vocabulary([" ".join(WORDS)], "wordpiece", 200, lowercase=True).save_pretrained(folder / "tokenizer")
    draw = random.Random(0)
    lines = [" ".join(draw.choices(WORDS, k=998)) for _ in range(100)]  # 1,000 tokens with the separators
    with (folder / "text.txt").open("w") as file:
        file.writelines(draw.choice(lines) + "\n" for _ in range(2 * NUM_BLOCKS // 1000))
    options = [
        *("model=distilbert_tiny", "model.tokenizer.train=false", "data=files", f"data.train={folder / 'text.txt'}"),
        *(f"model.tokenizer.name_or_path={folder / 'tokenizer'}", "data.block_size=2", f"data.batch_size={BATCH_SIZE}"),
    ]
    train(command(folder, "first", 2, options))

    def at(share: float) -> dict[str, float]:
        copy = folder / "runs" / f"at{share}"
        move(killed_after(1, folder / "runs" / "first", copy), int(share * NUM_BLOCKS / BATCH_SIZE))
        return rerun(folder, copy.name, 2, options)

    sides = {f"{share:.0%} of {NUM_BLOCKS:,}": (lambda share=share: at(share)) for share in (0.1, 0.9)}
    in_turns(sides, 1)  # warm-up
    compare(in_turns(sides, rounds), "rerun_s", list(sides)[1])


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


def imdb(folder: Path, rounds: int, text: str, tokenizer: str) -> None:
    """DistilBERT: resumed runs, and the time of a save."""
    options = [
        *("model=distilbert", "model.from_scratch=true", f"model.tokenizer.name_or_path={tokenizer}"),
        *("data=imdb", f"data.path={text}", "data.batch_size=16"),
    ]
    train(command(folder, "first", 2, options))
    first = folder / "runs" / "first"
    checkpoint = first / "checkpoints" / "step=1.ckpt"
    weights = sum(path.stat().st_size for path in (first / "model").glob("*.safetensors"))

    def again() -> dict[str, float]:
        killed_after(1, first, folder / "runs" / "again")
        return rerun(folder, "again", 2, options)

    def saving() -> dict[str, float]:
        shutil.rmtree(folder / "runs" / "saving", ignore_errors=True)
        return last_json([sys.executable, __file__, "saving", *command(folder, "saving", 6, options)])

    found = in_turns({"rerun": again, "saving": saving}, rounds)
    for name, figures in found.items():
        for figure in figures[0]:
            values = [row[figure] for row in figures]
            print(f"{name:8} {figure:12} {statistics.median(values):.3g}  ({min(values):.3g} to {max(values):.3g})")
    print(f"checkpoint_mb {checkpoint.stat().st_size / 1e6:.1f}, model_mb {weights / 1e6:.1f}")


def saving(arguments: list[str]) -> dict[str, float]:
    """Train in this process; return the medians of its saves and steps."""
    from lightning import Trainer

    from lmft.commands.train import fit
    from lmft.config.load import compose
    from lmft.runs.run import Run

    seconds: list[float] = []
    save: Callable = Trainer.save_checkpoint

    def timed(*args, **kwargs) -> None:
        start = time.perf_counter()
        save(*args, **kwargs)
        seconds.append(time.perf_counter() - start)

    Trainer.save_checkpoint = timed
    config = compose(arguments)
    run = Run(config)
    fit(config, run)
    tokens = config["data"]["batch_size"] * config["data"]["block_size"]
    with run.paths.metrics_csv.open(newline="") as file:
        rows = [tokens / float(row["tokens_per_second"]) for row in csv.DictReader(file)]
    save_s = statistics.median(seconds)
    step_s = statistics.median(rows[2:]) - save_s  # a row's time has the save after the step before it
    return {"save_s": save_s, "step_s": step_s, "save_steps": save_s / step_s}


if __name__ == "__main__":
    if sys.argv[1:2] == ["saving"]:
        print(json.dumps(saving(sys.argv[2:])))
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["deep", "imdb"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text")
    parser.add_argument("--tokenizer")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.what == "deep":
            deep(Path(name), given.rounds)
        elif not (given.text and given.tokenizer):
            parser.error("imdb needs --text and --tokenizer")
        else:
            imdb(Path(name), given.rounds, given.text, given.tokenizer)
