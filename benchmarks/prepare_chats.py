"""Time to turn chats into token ids and a mask of the answers, compared with a loop over rows.

    python benchmarks/prepare_chats.py --model FOLDER --chats CHATS.jsonl [--rounds 5]

lmft reads and checks the rows, renders and tokenises them, and writes a store with checksums. The loop reads the rows,
renders each prompt and each whole conversation with `apply_chat_template`, and tokenises both.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

from lmft.config.load import compose
from lmft.config.schema import build
from lmft.data.config import DataConfig
from lmft.data.corpus import load_corpus
from lmft.objectives.causal import NextToken
from lmft.reporting.progress import counting_progress
from turns import compare, in_turns


def ours(arguments: argparse.Namespace, tokenizer, folder: Path) -> dict[str, float]:
    """Build a store in an empty cache."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    options = ["data=chat", f"data.train={arguments.chats}", "data.validation_fraction=0", f"data.cache_dir={cache}"]
    data = build(DataConfig, compose(options)["data"], "data")
    start = time.perf_counter()
    corpus = load_corpus(data, tokenizer, NextToken(), 1, counting_progress)
    return {"rows_per_s": corpus.ledger["train"]["documents"] / (time.perf_counter() - start)}


def loop(arguments: argparse.Namespace, tokenizer) -> dict[str, float]:
    """Row by row."""
    start = time.perf_counter()
    rows = [json.loads(line)["messages"] for line in Path(arguments.chats).read_text(encoding="utf-8").splitlines()]
    done = []
    for messages in rows:
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
        known, ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, whole))
        done.append((ids, [-100] * len(known) + ids[len(known) :]))
    return {"rows_per_s": len(done) / (time.perf_counter() - start)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--chats", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    loaded = AutoTokenizer.from_pretrained(given.model)
    with tempfile.TemporaryDirectory() as name:
        sides = {"lmft": lambda: ours(given, loaded, Path(name)), "row by row": lambda: loop(given, loaded)}
        found = in_turns(sides, given.rounds)
    compare(found, "rows_per_s", "lmft")
