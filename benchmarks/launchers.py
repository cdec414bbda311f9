"""Time a job of a sweep beside a single run: python benchmarks/launchers.py

Jobs run one after the other, so that what a launcher adds to a job is the difference from a single run.
Prints seconds per job, and seconds of CPU time, which depend less on other work of the machine.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOB = [
    *("model=distilbert_tiny", "trainer=cpu", "trainer.max_steps=2", "validate_before=false"),
    *("data.train=text.txt", "data.batch_size=4", "data.block_size=64", "model.tokenizer.vocab_size=500"),
]
KINDS = {
    "launcher=none": ["launcher=none"],
    "launcher=joblib": ["launcher=joblib", "hydra.launcher.n_jobs=1"],
    "launcher=submitit_local": ["launcher=submitit_local", "hydra.launcher.cpus_per_task=1000"],
}


def seconds_of(folder: Path, *argv: str) -> tuple[float, float]:
    """Return the seconds that a command takes, and those of CPU time, of all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "lmft.train", *JOB, *argv]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(num_jobs: int = 4) -> None:
    """Time single runs, then a sweep by each launcher, and print a line for each."""
    seeds = range(1, num_jobs + 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(Path(argparse.__file__).read_text("utf-8"))
        seconds_of(folder, "seed=100", "run.name=first")
        single = [seconds_of(folder, f"seed={seed}", f"run.name={seed}") for seed in seeds]
        totals = {"single run": tuple(map(sum, zip(*single, strict=True)))}
        for kind, argv in KINDS.items():
            swept = f"seed={','.join(map(str, seeds))}"
            totals[kind] = seconds_of(folder, "--multirun", swept, *argv, f"run.name={kind[9:]}")
    for kind, (seconds, cpu_seconds) in totals.items():
        per_job = f"{seconds / num_jobs:6.2f} s per job, {cpu_seconds / num_jobs:6.2f} s of CPU time"
        print(f"{kind:24} {per_job}")


if __name__ == "__main__":
    main()
