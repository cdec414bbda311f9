"""What a job costs in a sweep, beside a single run of the same config.

    python benchmarks/sweep.py [NUM_JOBS]

Both train the smallest model for a step; the rest is starting, composing, checking, exporting. Prints seconds of wall
clock and of CPU time for each job.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = (
    *("data=files", "data.validation_fraction=0.2", "data.block_size=32", "data.batch_size=4", "data.num_workers=0"),
    *("trainer=cpu", "trainer.max_steps=1", "validate_before=false", "checkpoint.keep_last=0"),
    *("model=distilbert_tiny", "model.tokenizer.vocab_size=200", "model.config.n_layers=1"),
)


def seconds(folder: Path, *arguments: str) -> tuple[float, float]:
    """Wall clock and CPU time of a command."""
    before = os.times()
    started = time.perf_counter()
    command = [sys.executable, "-m", "lmft.train", *OPTIONS, f"data.train={folder}/text.txt", f"run.dir={folder}"]
    subprocess.run([*command, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    return time.perf_counter() - started, cpu


def main() -> None:
    """Measure and print."""
    num_jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text("".join(f"the sea number {i} is wide and {i * 7} deep\n" for i in range(300)))
        seconds(folder, "run.name=first")  # the text is tokenised once
        single = [seconds(folder, f"seed={seed}", f"run.name=single-{seed}") for seed in range(num_jobs)]
        one = seconds(folder, "-m", "seed=0", "run.name=sweep-of-one")
        sweep = seconds(folder, "-m", f"seed=range({num_jobs + 1})", "run.name=sweep")
    for what, i in (("wall clock", 0), ("CPU time", 1)):
        each = sum(run[i] for run in single) / num_jobs
        print(f"{what}: a single run {each:.1f} s; a sweep of one job {one[i]:.1f} s;", end=" ")
        print(f"each further job {(sweep[i] - one[i]) / num_jobs:.1f} s")


if __name__ == "__main__":
    main()
