"""Pseudo-log-likelihood of texts by lmft, beside loops over transformers' model.

The usual loop hides one token and calls the model on one row; another hides each token of a text in a
row of its own and calls the model on 32 rows. Loading is not timed. Without --model the model is
DistilBERT's shape with random weights.
"""

import time
from pathlib import Path
from typing import Any

from benchmarks import made_up
from benchmarks.figures import compared, values_of
from benchmarks.session import Session, Side
from benchmarks.workloads import CPU, TINY

COMMAND = "python -m benchmarks score"
NUM_TEXTS = 4


def run(session: Session) -> None:
    """Measure the three on the same texts in this process, and refuse figures if their sums differ."""
    from benchmarks.peer_data import build_model

    workload = TINY[0] if session.is_tiny else CPU[0]
    folder = session.folder / "score"
    folder.mkdir()
    made_up.write(folder, "masked", workload.vocab_size, 1_000, 0, workload.longest)
    model = session.given.get("model")
    if not model:
        model = str(folder / "model")
        tokenizer = made_up.tokenizer("masked", workload.vocab_size)
        build_model(workload, len(tokenizer)).save_pretrained(model)
        tokenizer.save_pretrained(model)
    texts: list[list[int]] = []
    sides = {"lmft": ours(model, folder, texts), "the usual loop": loop(model, texts, 1)}
    sides["a loop of 32 rows"] = loop(model, texts, 32)
    rounds = session.in_turns(sides)
    sums = [values_of(rounds, name, "nats")[0] for name in rounds]
    if max(sums) - min(sums) > 1e-4 * max(sums):
        raise ValueError(f"the sums of nats differ: {sums}")
    session.row(
        "Scoring", "pseudo-log-likelihood: texts/s", COMMAND, compared(rounds, "texts_per_s", "texts/s")
    )


def ours(model: str, folder: Path, texts: list[list[int]]) -> Side:
    """Return lmft's side; its tokens are put into `texts`."""
    from lmft.assembly import ScoredRows, load_module
    from lmft.commands.score import checked_config
    from lmft.config.load import compose
    from lmft.modules.scoring import score

    given = [
        f"model.name_or_path={model}",
        f"data.train={folder}/text.txt",
        "too_long=cut",
        "device=cpu",
    ]
    config = checked_config(compose(given, "score"), given)
    module: Any = load_module(config)
    module.model.set_attn_implementation("sdpa")  # as the command does
    rows = ScoredRows(config, module)
    scored = next(iter(rows.chunks()))[:NUM_TEXTS]
    texts += [row.text.tokens.tolist() for row in scored]

    def side() -> dict[str, float]:
        start = time.perf_counter()
        nats = score(module, [row.text for row in scored], rows.window)
        seconds = time.perf_counter() - start
        return {"texts_per_s": len(texts) / seconds, "nats": float(sum(of[1:-1].sum() for of in nats))}

    return side


def loop(folder: str, texts: list[list[int]], size: int) -> Side:
    """Return a side that calls the model on `size` rows, each with another token hidden."""
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(folder).eval()
    mask_id = AutoTokenizer.from_pretrained(folder).mask_token_id

    @torch.no_grad()
    def side() -> dict[str, float]:
        start = time.perf_counter()
        nats = 0.0
        for text in texts:
            ids = torch.tensor(text)
            for places in torch.arange(1, len(text) - 1).split(size):
                rows = torch.arange(len(places))
                hidden = ids.repeat(len(places), 1)
                hidden[rows, places] = mask_id
                logits = model(input_ids=hidden).logits[rows, places]
                nats -= logits.log_softmax(-1)[rows, ids[places]].double().sum().item()
        return {"texts_per_s": len(texts) / (time.perf_counter() - start), "nats": nats}

    return side
