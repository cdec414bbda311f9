"""One run of `python -m lmft.train`, timed by the metrics it writes, and one of the peer, `hf_trainer.py`."""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from turns import last_json

NUM_WARM_UP = 2  # first steps of a run, which no figure counts
_PEER = Path(__file__).with_name("hf_trainer.py")


def lmft_train(folder: Path, options: list[str]) -> tuple[list[float], float]:
    """Return the tokens per second of each step after the warm-up, and the peak memory in GB.

    The run neither validates nor saves checkpoints. `folder` keeps its token store for the next run.
    """
    run = Path(tempfile.mkdtemp(dir=folder))
    command = [
        *(sys.executable, "-m", "lmft.train", f"data.cache_dir={folder / 'cache'}", f"run.dir={run}", "run.name=bench"),
        *("trainer.log_every_n_steps=1", "validate_before=false", "data.validation_fraction=0"),
        *("checkpoint.keep_last=0", "model.probes=[]", "data.probes=[]", *options),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    with (run / "bench" / "metrics.csv").open(newline="") as file:
        speeds = [float(row["tokens_per_second"]) for row in csv.DictReader(file)][NUM_WARM_UP:]
    peak = json.loads((run / "bench" / "metrics.json").read_text())["train"]["peak_memory_gb"]
    return speeds, peak


def hf_trainer(job: str, *options: str) -> dict[str, float]:
    """Return the figures of one run of the peer."""
    return last_json([sys.executable, str(_PEER), job, *options])
