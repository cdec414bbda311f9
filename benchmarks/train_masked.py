"""Training speed and memory of the main job, beside the Hugging Face Trainer's.

    python benchmarks/train_masked.py --peer PEER.py --text IMDB_FOLDER --tokenizer FOLDER [--rounds 3] [--steps 8]

DistilBERT's shape with random weights, 16 blocks of 128 tokens a step. PEER.py takes `train --objective mlm --model
distilbert --tokenizer FOLDER --text FILE --precision bf16|fp32 --batch-size 16 --steps N` and prints a JSON line with
tokens_per_s and peak_gb; the two first steps of either side are warm-up.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from training import lmft_train
from turns import compare, in_turns, last_json

TOKENS = 16 * 128


def ours(arguments: argparse.Namespace, folder: Path, precision: str) -> dict[str, float]:
    """One run of `python -m lmft.train`; the median of its steps."""
    options = [
        *("model=distilbert", "model.from_scratch=true", f"model.tokenizer.name_or_path={arguments.tokenizer}"),
        *("data=imdb", f"data.path={arguments.text}", "data.batch_size=16"),
        *(f"trainer.max_steps={arguments.steps}", f"trainer.precision={precision}"),
    ]
    speeds, peak = lmft_train(folder, options)
    return {"tokens_per_s": statistics.median(speeds), "peak_gb": peak}


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
