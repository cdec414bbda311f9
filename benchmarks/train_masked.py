"""Training speed and memory of the main job, beside the Hugging Face Trainer's.

    python benchmarks/train_masked.py --peer PEER.py --text IMDB_FOLDER --tokenizer FOLDER [--rounds 3] [--steps 8]

DistilBERT's shape with random weights, 16 blocks of 128 tokens a step. PEER.py takes `train --objective mlm --model
distilbert --tokenizer FOLDER --text FILE --precision bf16|fp32 --batch-size 16 --steps N` and prints a JSON line with
tokens_per_s and peak_gb; the two first steps of either side are warm-up.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from turns import compare, in_turns, last_json

TOKENS = 16 * 128


def ours(arguments: argparse.Namespace, folder: Path, precision: str) -> dict[str, float]:
    """One run of `python -m lmft.train`; the median of its steps."""
    run = Path(tempfile.mkdtemp(dir=folder))
    command = [
        *(sys.executable, "-m", "lmft.train", "model=distilbert", "model.from_scratch=true", "data=imdb"),
        *(f"model.tokenizer.name_or_path={arguments.tokenizer}", f"data.path={arguments.text}"),
        *(f"data.cache_dir={folder / 'cache'}", f"run.dir={run}", "run.name=bench", "data.batch_size=16"),
        *(f"trainer.max_steps={arguments.steps}", "trainer.log_every_n_steps=1", "validate_before=false"),
        *("data.validation_fraction=0", "checkpoint.keep_last=0", f"trainer.precision={precision}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    rows = (run / "bench" / "metrics.csv").read_text().splitlines()[1:]
    seconds = [TOKENS / float(row.split(",")[-1]) for row in rows][2:]
    peak = json.loads((run / "bench" / "metrics.json").read_text())["train"]["peak_memory_gb"]
    return {"tokens_per_s": TOKENS / statistics.median(seconds), "peak_gb": peak}


def peer(arguments: argparse.Namespace, folder: Path, precision: str) -> dict[str, float]:
    """One run of the peer; the median of its steps."""
    command = [
        *(sys.executable, arguments.peer, "train", "--objective", "mlm", "--model", "distilbert"),
        *("--tokenizer", arguments.tokenizer, "--text", f"{arguments.text}/train.parquet", "--precision", precision),
        *("--batch-size", "16", "--steps", str(arguments.steps), "--max-rows", "500", "--out", str(folder / "peer")),
    ]
    row = last_json(command)
    return {"tokens_per_s": TOKENS / row["step_s"], "peak_gb": row["peak_gb"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        found = in_turns(
            {
                "lmft bf16": lambda: ours(given, place, "bf16-mixed"),
                "Trainer bf16": lambda: peer(given, place, "bf16"),
                "Trainer fp32": lambda: peer(given, place, "fp32"),
            },
            given.rounds,
        )
    compare(found, "tokens_per_s", "lmft bf16")
    compare(found, "peak_gb", "lmft bf16")
