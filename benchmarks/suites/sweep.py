"""The cost of a job in a sweep with each launcher, compared with a single command.

All train the smallest model for two steps, so that what is left is starting, composing, checking and
exporting.
"""

import contextlib
import io
import resource
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks import made_up
from benchmarks.figures import compared
from benchmarks.ours import options
from benchmarks.process import Failed, finished
from benchmarks.session import Session
from benchmarks.workloads import OVERHEAD

COMMAND = "python -m benchmarks sweep"
ALONE = "a command of its own"
LAUNCHERS = {
    "launcher=none": [],
    "launcher=joblib": ["hydra.launcher.n_jobs=1"],
    "launcher=submitit_local": ["hydra.launcher.cpus_per_task=1000"],
}


def run(session: Session) -> None:
    """Measure a job of a sweep by each installed launcher; in tiny sizes one job by the first."""
    num_jobs = 1 if session.is_tiny else 4
    made_up.write(session.folder, OVERHEAD.job, OVERHEAD.vocab_size, 2_000, 0, OVERHEAD.longest)
    launchers = [name for name in LAUNCHERS if find_spec(name.partition("=")[2].removesuffix("_local"))]
    launchers = ["launcher=none", *(launchers if not session.is_tiny else [])]
    costs = costs_here if session.is_tiny else costs_elsewhere
    numbers = iter(range(10**6))
    common = [
        *options(OVERHEAD, session.folder),
        "trainer=cpu",
        "trainer.max_steps=2",
        "validate_before=false",
    ]
    common += [f"run.dir={session.folder}/runs"]

    def job_of(launcher: str) -> dict[str, float]:
        seeds = ",".join(str(seed) for seed in range(num_jobs))
        more = ["--multirun", launcher, *LAUNCHERS[launcher], f"seed={seeds}"]
        return {
            name: each / num_jobs
            for name, each in costs([*more, *common, f"run.name=s{next(numbers)}"]).items()
        }

    def alone() -> dict[str, float]:
        return costs([*common, f"run.name=s{next(numbers)}"])

    alone()  # the text is tokenised once
    sides = {name: (lambda name=name: job_of(name)) for name in launchers}
    rounds = session.in_turns({ALONE: alone, **sides})
    for name in launchers:
        for key, what in (("cpu_s", "CPU time"), ("seconds", "elapsed")):
            chosen = {name: rounds[name], ALONE: rounds[ALONE]}
            session.row(
                "Sweeps", f"a job by `{name}`: {what}", COMMAND, compared(chosen, key, "s", name)
            )


def costs_here(arguments: list[str]) -> dict[str, float]:
    """Return what the command takes in this process, without its start."""
    from lmft import train

    cpu = time.process_time()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            train.main(arguments)
        except SystemExit as end:  # that of a sweep
            if end.code:
                raise Failed(f"exit code {end.code}") from None
    return {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def costs_elsewhere(arguments: list[str]) -> dict[str, float]:
    """Return what a training's command takes, with all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    finished([sys.executable, "-m", "lmft.train", *arguments], folder=Path.cwd())
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_s": cpu}
