"""A command for tests of launchers: its jobs train nothing, and leave what they saw of their process."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from lmft.cli.command import run_command
from lmft.errors import UserError
from lmft.runs.run import Run
from lmft.system.cache import built_once
from lmft.system.signals import Stopped, defer_signals, recorded_signal

SECRET = "hf_SentinelThatMustNotBeWritten"
SEEN = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SLURM_JOB_ID")


def run(job):
    """Leave seen.json. The seed says what happens; see `happen`."""
    before = Run(job.config, job.choices, job.arguments)
    if before.status() == "complete":
        return 3 / job.config["seed"]
    built_once(Path("cache/text"), build=build, damage=lambda _: None, warn=print)
    with before as run:
        run.begin()
        seed = job.config["seed"]
        seen = {name: os.environ.get(name) for name in SEEN}
        seen |= {"process": os.getpid(), "time": time.time(), "has_secret": SECRET in str(job.config["logger"])}
        seen["files_with_secret"] = [str(path) for path in files_with(SECRET, run.folder.parent)]
        with (run.folder / "attempts").open("a") as file:
            file.write("x")
        (run.folder / "seen.json").write_text(json.dumps(seen))
        happen(seed, run.folder)
        metrics = {"status": "complete", "after": {"loss": 3 / seed, "perplexity": 2.0}, "train": {"seconds": 1.0}}
        run.write_metrics(metrics)
    return 3 / seed


def build(folder):
    """Leave a line for each process that builds, which takes a while."""
    with Path("cache/builders").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(1)
    (folder / "text").touch()


def happen(seed, folder):
    """13 is refused, 14 fails, 15 is killed; from 100 on, the first attempt waits for a signal."""
    time.sleep(0.3)
    if seed == 13:
        raise UserError("an unlucky number", "seed", "another")
    if seed == 14:
        raise RuntimeError("bug")
    if seed == 15:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed >= 100 and (folder / "attempts").stat().st_size == 1:
        wait_for_signal(folder)


def wait_for_signal(folder):
    """As a training does: a signal is heeded after the step, when a checkpoint is saved."""
    defer_signals()
    (folder / "step").touch()
    for _ in range(1200):
        time.sleep(0.05)
        signum = recorded_signal()
        if signum is not None:
            time.sleep(0.5)  # the rest of the step
            (folder / "saved").touch()
            raise Stopped(signum)
    raise AssertionError("no signal came")


def files_with(text, folder):
    """Files below a folder that hold a text."""
    paths = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    return [path for path in paths if text.encode() in path.read_bytes()]


def main(argv=None):
    """Run the command."""
    run_command("train", run, argv, makes_runs=True)


if __name__ == "__main__":
    from tests.helpers import sweep_jobs  # so that jobs find their function by its name

    sweep_jobs.main(sys.argv[1:])
