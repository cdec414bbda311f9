"""Training speed and memory of a causal model, beside the Hugging Face Trainer's: plain text, and chats.

    python benchmarks/train_causal.py plain --peer PEER.py --model SMOLLM2_FOLDER --text IMDB_FOLDER [--rounds 3]
    python benchmarks/train_causal.py chat --peer PEER.py --model SMOLLM2_FOLDER --text CHATS.jsonl [--rounds 3]

plain: 4 blocks of 256 tokens a step. chat: rows of at most 512 tokens, the loss on the answers; here 5 packs of 512
tokens a step, there 8 rows, padded to the longest, in random order or with --group-by-length. Tokens are real ones:
padding is not counted. PEER.py takes `train --objective clm|chat --model FOLDER --text FILE --precision bf16 …` and
prints a JSON line with tokens_per_s and peak_gb; the two first steps of either side are warm-up.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from training import lmft_train
from turns import compare, in_turns, last_json

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


def peer(arguments: argparse.Namespace, folder: Path, *options: str) -> dict[str, float]:
    """One run of the peer."""
    plain = arguments.what == "plain"
    text = f"{arguments.text}/train.parquet" if plain else arguments.text
    sizes = ("4", "256") if plain else ("8", "512")
    command = [
        *(sys.executable, arguments.peer, "train", "--objective", "clm" if plain else "chat"),
        *("--model", arguments.model, "--text", text, "--precision", "bf16", "--steps", str(arguments.steps)),
        *("--batch-size", sizes[0], "--block-size", sizes[1], "--max-rows", "500", "--out", str(folder / "peer")),
        *options,
    ]
    row = last_json(command)
    return {"tokens_per_s": row["tokens_per_s"], "peak_gb": row["peak_gb"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plain", "chat"])
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sides = {"lmft": lambda: ours(given, place), "Trainer": lambda: peer(given, place)}
        if given.what == "chat":
            sides["Trainer, by length"] = lambda: peer(given, place, "--group-by-length")
        found = in_turns(sides, given.rounds)
    compare(found, "tokens_per_s", "lmft")
    compare(found, "peak_gb", "lmft")
