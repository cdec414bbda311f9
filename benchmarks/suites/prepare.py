"""Text and chats to token ids, and these to batches, compared with `datasets` and transformers.

Both sides begin with the name of a file and end with ready rows; loading the tokenizer is part of it.
"""

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import made_up
from benchmarks.figures import compared, value, values_of
from benchmarks.ours import options
from benchmarks.session import Session
from benchmarks.workloads import TINY, Workload

COMMAND = "python -m benchmarks prepare"
SECTION = "Preparing data"
MASKED = Workload("64 × 512 masked", "masked", "distilbert", 30_522, 64, 512)
PERMUTED = Workload("8 × 512 XLNet", "masked", "xlnet", 30_522, 8, 512)
NUM_CHATS = 20_000  # enough of text for several processes
CHATS = Workload("chats", "chats", "llama", 49_152, 5, 512)


def run(session: Session) -> None:
    """Measure texts, chats and batches."""
    text, tokenizer = place(session)
    texts(session, text, tokenizer)
    chats(session)
    batches(session)


def place(session: Session) -> tuple[str, str]:
    """Return the text and tokenizer that were given, or Python's documentation and its vocabulary."""
    text, tokenizer = session.given.get("text"), session.given.get("tokenizer")
    if not (text and tokenizer):
        made = session.side(
            "suites.prepare:documentation", folder=str(session.folder), tiny=session.is_tiny
        )
        made()
    return text or f"{session.folder}/docs.txt", tokenizer or f"{session.folder}/vocabulary"


def documentation(folder: str, tiny: bool) -> dict[str, float]:
    """Write Python's documentation, a document a line, and a vocabulary that is trained on it."""
    from lmft.data.sources import python_docs
    from lmft.data.sources.tally import Tally
    from lmft.models.loading.vocabulary import train_vocabulary

    chunks = itertools.islice(python_docs.read(None, Tally()), 5 if tiny else None)
    found = [" ".join(text.split()) for chunk in chunks for text in chunk.columns["text"]]
    Path(folder, "docs.txt").write_text("\n".join(found) + "\n", "utf-8")
    vocabulary = train_vocabulary(found, "wordpiece", 2_000 if tiny else 30_522, lowercase=True)
    vocabulary.save_pretrained(Path(folder, "vocabulary"))
    return {"documents": len(found)}


def texts(session: Session, text: str, tokenizer: str) -> None:
    """Measure from a text to blocks of 128 tokens."""
    kept = session.folder / "stores"
    kept.mkdir()
    common: dict[str, Any] = {"text": text, "tokenizer": tokenizer}
    there = {**common, "cache": str(kept / "there")}
    session.side("suites.prepare:ours", **there)()
    rounds = session.in_turns(
        {
            "lmft": lambda: session.side(
                "suites.prepare:ours", cache=tempfile.mkdtemp(dir=kept), **common
            )(),
            "`map(tokenize)` and `map(group_texts)`": session.side("suites.prepare:maps", **common),
            "store there": session.side("suites.prepare:ours", **there),
        }
    )
    again = values_of(rounds, "store there", "seconds")
    del rounds["store there"]
    session.row(
        SECTION,
        "text to blocks of token ids: tokens/s",
        COMMAND,
        compared(rounds, "tokens_per_s", "tokens/s"),
    )
    session.row(
        SECTION, "text to blocks of token ids: peak memory", COMMAND, compared(rounds, "peak_gb", "GB")
    )
    results = [value(again, "s")] if again else []
    session.row(SECTION, "the same text again: first rows, with the tokenizer loaded", COMMAND, results)


def ours(text: str, tokenizer: str, cache: str) -> dict[str, float]:
    """Prepare a text by lmft, with a store in `cache`."""
    import numpy as np

    from benchmarks.clock import peak_memory_gb
    from lmft import api

    given = ["model=distilbert", "model.from_scratch=true", f"model.tokenizer.name_or_path={tokenizer}"]
    given += [
        "data=files",
        f"data.train={text}",
        "data.validation_fraction=0",
        f"data.cache_dir={cache}",
    ]
    config = api.compose(given)
    start = time.perf_counter()
    rows = api.assemble(config).corpus.examples["train"]
    rows.rows(np.arange(min(64, len(rows))))
    seconds = time.perf_counter() - start
    return {"tokens_per_s": rows.num_tokens / seconds, "seconds": seconds, "peak_gb": peak_memory_gb()}


def maps(text: str, tokenizer: str) -> dict[str, float]:
    """Prepare a text as run_mlm.py does."""
    from benchmarks.clock import peak_memory_gb
    from benchmarks.peer_data import grouped, lines, load_tokenizer, tokenised

    start = time.perf_counter()
    rows = grouped(tokenised(lines(Path(text)), load_tokenizer(tokenizer)), 128)
    seconds = time.perf_counter() - start
    return {"tokens_per_s": len(rows) * 128 / seconds, "seconds": seconds, "peak_gb": peak_memory_gb()}


def chats(session: Session) -> None:
    """Measure from conversations to token ids with the answers marked."""
    workload = TINY[2] if session.is_tiny else CHATS
    folder = session.folder / "chats"
    folder.mkdir()
    num_chats = 20 if session.is_tiny else NUM_CHATS
    made_up.write(folder, "chats", workload.vocab_size, 0, num_chats, workload.longest)
    common: dict[str, Any] = {"workload": workload.plain, "folder": str(folder)}
    rounds = session.in_turns(
        {
            "lmft": session.side("suites.prepare:our_chats", **common),
            "a loop of `apply_chat_template`": session.side("suites.prepare:chat_loop", **common),
        }
    )
    figure = f"{num_chats:,} chats to token ids with the answers marked: rows/s"
    session.row(SECTION, figure, COMMAND, compared(rounds, "rows_per_s", "rows/s"))


def our_chats(workload: dict[str, Any], folder: str) -> dict[str, float]:
    """Prepare the chats by lmft, with an empty cache."""
    from lmft import api

    shutil.rmtree(Path(folder, "cache"), ignore_errors=True)
    config = api.compose(options(Workload(**workload), Path(folder)))
    start = time.perf_counter()
    ledger = api.assemble(config).corpus.ledger["train"]
    return {"rows_per_s": ledger["documents"] / (time.perf_counter() - start)}


def chat_loop(workload: dict[str, Any], folder: str) -> dict[str, float]:
    """Prepare the chats row by row."""
    from benchmarks.peer_data import answered, load_tokenizer

    start = time.perf_counter()
    rows = answered(Path(folder, "chats.jsonl"), load_tokenizer(f"{folder}/tokenizer"))
    return {"rows_per_s": len(rows) / (time.perf_counter() - start)}


def batches(session: Session) -> None:
    """Measure batches from stored token ids, beside transformers' collators."""
    for workload, objective in ((MASKED, "mlm"), (PERMUTED, "permutation")):
        folder = session.folder / objective
        folder.mkdir()
        vocab_size = 500 if session.is_tiny else workload.vocab_size
        num_tokens = 20_000 if session.is_tiny else 1_000_000
        made_up.write(folder, "masked", vocab_size, num_tokens, 0, workload.longest)
        common: dict[str, Any] = {
            "workload": workload.plain,
            "folder": str(folder),
            "objective": objective,
            "count": 2 if session.is_tiny else 50,
        }
        rounds = session.in_turns(
            {
                "lmft": session.side("suites.prepare:our_batches", **common),
                "`datasets` with transformers' collator": session.side(
                    "suites.prepare:collated", **common
                ),
            }
        )
        speeds = compared(rounds, "batches_per_s", "batches/s")
        session.row(
            SECTION,
            f"batches of {workload.name} from stored token ids: batches/s of CPU time",
            COMMAND,
            speeds,
        )


def our_batches(workload: dict[str, Any], folder: str, objective: str, count: int) -> dict[str, float]:
    """Make batches by lmft's DataLoader."""
    from lmft import api

    job = Workload(**workload)
    given = [*options(job, Path(folder)), f"objective={objective}"]
    if objective == "permutation":
        given[0] = "model=permuted"
    loader = api.assemble(api.compose(given)).datamodule().train_dataloader()
    return per_second(loader, count)


def collated(workload: dict[str, Any], folder: str, objective: str, count: int) -> dict[str, float]:
    """Make batches by a DataLoader, from rows on disk."""
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForLanguageModeling, DataCollatorForPermutationLanguageModeling

    from benchmarks.peer_data import grouped, lines, load_tokenizer, tokenised

    job = Workload(**workload)
    tokenizer = load_tokenizer(f"{folder}/tokenizer")
    rows: Any = grouped(tokenised(lines(Path(folder, "text.txt")), tokenizer), job.tokens)
    rows = rows.select_columns(["input_ids"])
    masked = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    is_masked = objective == "mlm"
    collator: Any = masked if is_masked else DataCollatorForPermutationLanguageModeling(tokenizer)
    return per_second(DataLoader(rows, job.rows, shuffle=True, collate_fn=collator), count)


def per_second(loader: Any, count: int) -> dict[str, float]:
    """Return how many batches a second of CPU time gives, after the first one."""
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    next(endless)
    start = time.process_time()
    for _ in range(count):
        next(endless)
    return {"batches_per_s": count / (time.process_time() - start)}
