"""Training speed and memory of a causal model, compared with the Hugging Face Trainer (`hf_trainer.py`).

    python benchmarks/train_causal.py plain --model SMOLLM2_FOLDER --text IMDB_FOLDER [--rounds 3]
    python benchmarks/train_causal.py chat --model SMOLLM2_FOLDER --text CHATS.jsonl [--rounds 3]

plain: 4 blocks of 256 tokens a step. chat: conversations of at most 512 tokens, the loss on the answers; a step of lmft
has 5 packs of 512 tokens, a step of the Trainer 8 rows, padded to the longest, in random order or grouped by length.
Padding is not counted as tokens. The first two steps of both sides are warm-up.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from training import hf_trainer, lmft_train
from turns import compare, in_turns

OURS = {
    "plain": ["data=imdb", "data.block_size=256", "data.batch_size=4"],
    "chat": ["data=chat", "data.block_size=512", "data.batch_size=5"],
}


def ours(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """One run of `python -m lmft.train`: real tokens over seconds, of the steps after the second."""
    text = "data.path" if arguments.what == "plain" else "data.train"
    options = [
        *("model=smollm2", f"model.name_or_path={arguments.model}", *OURS[arguments.what]),
        *(f"{text}={arguments.text}", f"trainer.max_steps={arguments.steps}", "trainer.precision=bf16-mixed"),
    ]
    speeds, peak = lmft_train(folder, options)
    return {"tokens_per_s": statistics.harmonic_mean(speeds), "peak_gb": peak}


def peer(arguments: argparse.Namespace, *options: str) -> dict[str, float]:
    """One run of the peer."""
    plain = arguments.what == "plain"
    text = f"{arguments.text}/train.parquet" if plain else arguments.text
    sizes = ("4", "256") if plain else ("8", "512")
    common = [
        *("--model", arguments.model, "--text", text, "--precision", "bf16", "--steps", str(arguments.steps)),
        *("--batch-size", sizes[0], "--block-size", sizes[1], "--max-rows", "500", *options),
    ]
    row = hf_trainer("causal" if plain else "chat", *common)
    return {"tokens_per_s": row["tokens_per_s"], "peak_gb": row["peak_gb"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plain", "chat"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sides = {"lmft": lambda: ours(given, place), "Trainer": lambda: peer(given)}
        if given.what == "chat":
            sides["Trainer, by length"] = lambda: peer(given, "--group-by-length")
        found = in_turns(sides, given.rounds)
    compare(found, "tokens_per_s", "lmft")
    compare(found, "peak_gb", "lmft")
