"""Pseudo-log-likelihood of texts by lmft, compared with plain loops over transformers' model.

    python benchmarks/score.py --model FOLDER --text FILE [--rows 4] [--rounds 3] [--threads 2]

FOLDER is a masked model, FILE any file that lmft reads (imdb/test.parquet). The sides are lmft; the usual loop, which
hides one token and calls the model on one row; and a loop over texts, which hides each token of a text in a row of its
own and calls the model on 32 rows at a time. Texts longer than the model are cut. Prints the seconds of each side by
round, elapsed and of CPU time, their ratio, and how far the nats are apart; loading is not timed.
"""

import argparse
import time

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from lmft.assembly import ScoredRows, load_module
from lmft.commands.score import checked_config
from lmft.config.load import compose
from lmft.modules.scoring import score
from lmft.training.trainer import silence_libraries
from turns import Side, compare, in_turns


def clocks() -> dict[str, float]:
    """Return the time of day, and the CPU time of this process."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


def since(started: dict[str, float]) -> dict[str, float]:
    """Return the seconds since then."""
    return {name: now - started[name] for name, now in clocks().items()}


def ours(arguments: argparse.Namespace, texts: list[list[int]]) -> Side:
    """Score the texts by lmft; their tokens are put into `texts`."""
    given = [f"model.name_or_path={arguments.model}", f"data.train={arguments.text}", "too_long=cut", "device=cpu"]
    config = checked_config(compose(given, "score"), given)
    module = load_module(config)
    module.model.set_attn_implementation("sdpa")  # as the command does
    rows = ScoredRows(config, module)
    scored = next(iter(rows.chunks()))[: arguments.rows]
    texts += [row.text.tokens.tolist() for row in scored]

    def side() -> dict[str, float]:
        started = clocks()
        nats = score(module, [row.text for row in scored], rows.window)
        return {**since(started), "nats": float(sum(of_text[1:-1].sum() for of_text in nats))}

    return side


def loop(arguments: argparse.Namespace, texts: list[list[int]], size: int) -> Side:
    """Score the texts by calls of the model on `size` rows, each with another token hidden."""
    model = AutoModelForMaskedLM.from_pretrained(arguments.model).eval()
    mask_id = AutoTokenizer.from_pretrained(arguments.model).mask_token_id

    @torch.no_grad()
    def side() -> dict[str, float]:
        started = clocks()
        nats = 0.0
        for text in texts:
            ids = torch.tensor(text)
            for places in torch.arange(1, len(text) - 1).split(size):
                rows = torch.arange(len(places))
                hidden = ids.repeat(len(places), 1)
                hidden[rows, places] = mask_id
                logits = model(input_ids=hidden).logits[rows, places]
                nats -= logits.log_softmax(-1)[rows, ids[places]].double().sum().item()
        return {**since(started), "nats": nats}

    return side


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    silence_libraries()
    tokens: list[list[int]] = []
    sides = {"lmft": ours(given, tokens), "usual loop": loop(given, tokens, 1), "32 rows": loop(given, tokens, 32)}
    print(f"{len(tokens)} texts of {', '.join(str(len(text)) for text in tokens)} tokens, {given.threads} threads")
    results = in_turns(sides, given.rounds)
    for figure in ("seconds", "cpu_seconds"):
        compare(results, figure, "lmft")
    nats = {name: rows[0]["nats"] for name, rows in results.items()}
    print("nats differ by", *(f"{abs(value / nats['lmft'] - 1):.1e}" for value in nats.values()))
