"""What resuming costs, and what being able to resume costs: seconds and bytes.

    python benchmarks/resume.py deep [--rounds 5]
    python benchmarks/resume.py imdb --text IMDB_FOLDER --tokenizer FOLDER [--rounds 3]

A run is put into the state of one that was killed behind a checkpoint, and the same command is given again. Its time
goes from the start of the process to the end of the first new step.

deep: an epoch of ten million blocks, killed at 10% and at 90% of it: the ratio should be 1. The blocks hold 2 tokens
and the model is tiny, as what is looked at is the position; the checkpoint is one of the first step whose counts of
micro-batches are moved to there.

imdb: DistilBERT's shape with random weights, 16 blocks of 128 tokens a step. Prints

    rerun_s        from the start of the process to the end of the first new step
    save_s         how long a save keeps training waiting: model and AdamW's moments, forced to the disk
    step_s         how long a step takes without it
    save_steps     the quotient: with checkpoint.every_n_steps=500, a 500th of it is the share of time lost to saving
    checkpoint_mb  bytes on disk of a checkpoint
    model_mb       of the exported weights; a checkpoint holds three times as many, with AdamW's two moments of each
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
    """A training of so many steps, that saves after each."""
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


def killed_behind(step: int, run: Path, copy: Path) -> Path:
    """A copy of a run as if it had been killed behind a step; returns its only checkpoint."""
    shutil.rmtree(copy, ignore_errors=True)
    kept = f"step={step}.ckpt"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("model", "metrics.json", "last.ckpt*", "best.ckpt*"))
    for path in (copy / "checkpoints").iterdir():
        if not path.name.startswith(kept):
            path.unlink()
    return copy / "checkpoints" / kept


def rerun(folder: Path, name: str, steps: int, options: list[str]) -> dict[str, float]:
    """Continues a run by one step. metrics.csv is last written at the end of that. `epochs` tells where that was."""
    run = folder / "runs" / name
    start = time.time()
    train(command(folder, name, steps, [*options, "resume=must"]))
    epochs = json.loads((run / "metrics.json").read_text())["epochs"]
    return {"rerun_s": (run / "metrics.csv").stat().st_mtime - start, "epochs": epochs}


def deep(folder: Path, rounds: int) -> None:
    """The same rerun at two places of a long epoch."""
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
        move(killed_behind(1, folder / "runs" / "first", copy), int(share * NUM_BLOCKS / BATCH_SIZE))
        return rerun(folder, copy.name, 2, options)

    sides = {f"{share:.0%} of {NUM_BLOCKS:,}": (lambda share=share: at(share)) for share in (0.1, 0.9)}
    in_turns(sides, 1)  # so that nobody is timed cold
    compare(in_turns(sides, rounds), "rerun_s", list(sides)[1])


def move(checkpoint: Path, position: int) -> None:
    """Makes a checkpoint of the first epoch say that so many micro-batches are done."""
    import torch

    from lmft.runs.checkpoint_io import AtomicCheckpointIO

    content = torch.load(checkpoint, weights_only=True)
    progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        counts.update(dict.fromkeys(("ready", "started", "processed", "completed"), position))
    content["DataModule"]["position"] = position
    AtomicCheckpointIO().save_checkpoint(content, checkpoint)


def imdb(folder: Path, rounds: int, text: str, tokenizer: str) -> None:
    """The usual job: reruns, then what a save takes."""
    options = [
        *("model=distilbert", "model.from_scratch=true", f"model.tokenizer.name_or_path={tokenizer}"),
        *("data=imdb", f"data.path={text}", "data.batch_size=16"),
    ]
    train(command(folder, "first", 2, options))
    first = folder / "runs" / "first"
    checkpoint = first / "checkpoints" / "step=1.ckpt"
    weights = sum(path.stat().st_size for path in (first / "model").glob("*.safetensors"))

    def again() -> dict[str, float]:
        killed_behind(1, first, folder / "runs" / "again")
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
    """A training in this process: medians of its saves and of its steps."""
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
