"""Raw text to blocks of token ids, compared with `datasets.map` (`hf_trainer.py prepare`).

    python benchmarks/prepare.py --text IMDB_FOLDER --tokenizer FOLDER [--rounds 5]
    python benchmarks/prepare.py --flat GIGABYTES --text IMDB_FOLDER --tokenizer FOLDER

The second form repeats the text up to that size and prints the peak of resident memory while it is prepared.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from training import hf_trainer
from turns import compare, in_turns, last_json


@contextmanager
def silent(*_what: object) -> Iterator:
    """No progress display."""
    yield lambda _more: None


def prepare(tokenizer: str, text: str, word_ids: bool, cache: str) -> dict[str, float]:
    """Seconds from a file to ready blocks, in this process; a store that is there is opened."""
    from transformers import AutoTokenizer

    from lmft.config.schema import build
    from lmft.data.config import DataConfig
    from lmft.data.corpus import load_corpus
    from lmft.data.formats import text as text_format
    from lmft.objectives.mlm import MaskedTokens
    from lmft.objectives.whole_word import MaskedWords

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    if word_ids:  # as for a vocabulary that does not tell where words begin
        text_format.word_beginnings = lambda *_: None
    files = sorted(str(path) for path in Path(text).glob("train*")) if Path(text).is_dir() else text
    config = build(DataConfig, {"train": files, "validation_fraction": 0, "cache_dir": cache}, "data")
    start = time.perf_counter()
    corpus = load_corpus(config, loaded, MaskedWords() if word_ids else MaskedTokens(), 1, silent)
    corpus.examples["train"].rows(np.arange(64))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"tokens_per_s": corpus.examples["train"].num_tokens / seconds, "seconds": seconds, "peak_mb": peak}


def in_a_process(arguments: argparse.Namespace, cache: str, word_ids: bool = False) -> dict[str, float]:
    """`prepare` in a new process."""
    flags = ["--word-ids"] if word_ids else []
    places = ["--text", arguments.text, "--tokenizer", arguments.tokenizer]
    return last_json([sys.executable, __file__, "--once", cache, *places, *flags])


def compared_with_the_peer(arguments: argparse.Namespace) -> None:
    """The peer; lmft with an empty cache, with and without word_ids; lmft with a store in its cache."""
    peer = ["prepare", "--tokenizer", arguments.tokenizer, "--text", f"{arguments.text}/train.parquet"]
    with tempfile.TemporaryDirectory() as kept:
        results = in_turns(
            {
                "lmft": lambda: in_a_process(arguments, tempfile.mkdtemp(dir=kept)),
                "group_texts": lambda: hf_trainer(*peer),
                "lmft word_ids": lambda: in_a_process(arguments, tempfile.mkdtemp(dir=kept), word_ids=True),
                "lmft store there": lambda: in_a_process(arguments, f"{kept}/store"),
            },
            arguments.rounds,
        )
    for ours in ("lmft", "lmft word_ids"):
        compare({name: results[name] for name in (ours, "group_texts")}, "tokens_per_s", ours)
    for row in results["lmft store there"][1:]:
        print(f"store already there: first batch after {row['seconds']:.3f} s")


def repeated(arguments: argparse.Namespace) -> None:
    """Prepares the text repeated to a size, and prints the peak of resident memory."""
    import pyarrow.parquet as pq

    texts = pq.read_table(f"{arguments.text}/train.parquet", columns=["text"]).column("text").to_pylist()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "repeated.txt")
        with path.open("w", encoding="utf-8") as file:
            while file.tell() < arguments.flat * 1e9:
                file.writelines(text.replace("\n", " ") + "\n" for text in texts)
        arguments.text = str(path)
        print(json.dumps({"text_gb": arguments.flat, **in_a_process(arguments, f"{folder}/cache")}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flat", type=float, help="gigabytes of text")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    parser.add_argument("--word-ids", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        print(json.dumps(prepare(given.tokenizer, given.text, given.word_ids, given.once)))
    elif given.flat:
        repeated(given)
    else:
        compared_with_the_peer(given)
