"""Training speed and memory of a masked model, compared with the Hugging Face Trainer (`hf_trainer.py`).

    python benchmarks/train_masked.py --text IMDB_FOLDER --tokenizer FOLDER [--rounds 3] [--steps 8]

DistilBERT's shape with random weights, 16 blocks of 128 tokens a step. The first two steps of both sides are warm-up.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from training import hf_trainer, lmft_train
from turns import compare, in_turns

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


def peer(arguments: argparse.Namespace, precision: str) -> dict[str, float]:
    """One run of the peer; the median of its steps."""
    options = [
        *("--model", "distilbert", "--tokenizer", arguments.tokenizer, "--text", f"{arguments.text}/train.parquet"),
        *("--precision", precision, "--batch-size", "16", "--steps", str(arguments.steps), "--max-rows", "500"),
    ]
    row = hf_trainer("masked", *options)
    return {"tokens_per_s": TOKENS / row["step_s"], "peak_gb": row["peak_gb"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
                "Trainer bf16": lambda: peer(given, "bf16"),
                "Trainer fp32": lambda: peer(given, "fp32"),
            },
            given.rounds,
        )
    compare(found, "tokens_per_s", "lmft bf16")
    compare(found, "peak_gb", "lmft bf16")
