"""Time to make batches of T5, BART and XLNet from stored token ids, compared with `datasets` and a collator.

    python benchmarks/collate.py [--rounds 9] [--step-seconds SECONDS]

Both sides use a shuffled DataLoader without workers on the same tokens. lmft reads a token store. The other side reads
a `datasets.Dataset` on disk with a column `input_ids`, whose rows a collator gets as lists. The collators for T5 and
BART are written here in the usual way, with numpy's generator and a loop over rows; that for XLNet is
`DataCollatorForPermutationLanguageModeling` of transformers. A batch has 64 rows of 512 input tokens, 8 for XLNet.
Times are CPU times of one thread.

SECONDS: the time of a training step of T5-small's shape on 8 rows, which train_seq2seq.py prints as `step_s`. With it,
the share of that step that a batch of lmft takes is printed too.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, disable_progress_bars, load_from_disk
from tokenizers import Tokenizer, models
from torch.utils.data import DataLoader
from transformers import DataCollatorForPermutationLanguageModeling, PreTrainedTokenizerFast

from lmft.data.datamodule import Batches
from lmft.data.examples.blocks import Blocks
from lmft.data.examples.documents import Documents
from lmft.data.schedule.sampler import Schedule
from lmft.data.store import StoreWriter, TokenStore
from lmft.objectives.base import IGNORED, SENTENCE_END, Objective, Vocabulary
from lmft.objectives.permutation import Permutation
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling
from lmft.training.cpu import keep_freed_memory_in_process
from turns import Side, compare, in_turns

NUM_BLOCKS = 8192
SIZE, MASK, PAD, EOS, START, PERIOD = 32_100, 31_999, 0, 1, 0, 5
SENTINEL = SIZE - 1  # the first one; the others come before it
VOCABULARY = Vocabulary(
    SIZE,
    MASK,
    np.arange(3, MASK),
    PAD,
    eos_id=EOS,
    ids={f"<extra_id_{i}>": SENTINEL - i for i in range(100)},
    decoder_start_id=START,
)
Batch = dict[str, torch.Tensor]
Corrupt = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
generator = np.random.default_rng(0)


def text(num_tokens: int) -> np.ndarray:
    """Random tokens in sentences of 20, on average."""
    tokens = generator.integers(3, MASK, num_tokens)
    tokens[generator.random(num_tokens) < 1 / 20] = PERIOD
    return tokens


def ours(tokens: np.ndarray, block_size: int, objective: Objective, batch_size: int, folder: Path) -> Iterator[Any]:
    """Endless batches from a store of one long document."""
    folder.mkdir()
    writer = StoreWriter(folder, "<u2")
    flags = np.where(tokens == PERIOD, SENTENCE_END, 0)
    writer.append(tokens, flags, np.array([len(tokens)]), np.zeros(1), np.zeros(1))
    writer.finish({"prefix": [], "suffix": []})
    blocks = Blocks(Documents(TokenStore(folder)), block_size, PAD)
    schedule = Schedule(len(blocks), batch_size, 0, shuffled=True)
    loader = DataLoader(Batches(blocks, objective, VOCABULARY, 0, "train"), sampler=schedule, batch_size=None)
    for epoch in itertools.count():
        schedule.set_epoch(epoch)
        yield from loader


def usual(tokens: np.ndarray, block_size: int, collator: Callable, batch_size: int, folder: Path) -> Iterator[Any]:
    """Endless batches from a data set whose rows are lists."""
    starts = np.arange(0, len(tokens) + 1, block_size)
    rows = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), pa.array(tokens, pa.int32()))
    Dataset(pa.table({"input_ids": rows})).save_to_disk(folder)
    loader: Any = DataLoader(load_from_disk(folder), batch_size, shuffle=True, collate_fn=collator)  # pyright: ignore
    while True:
        yield from loader


def shifted_right(labels: np.ndarray) -> np.ndarray:
    """The decoder's inputs."""
    given = np.full_like(labels, START)
    given[:, 1:] = np.where(labels[:, :-1] == IGNORED, PAD, labels[:, :-1])
    return given


def t5_collator(rows: list[dict[str, list[int]]]) -> Batch:
    """T5's, as in the Flax example: spans are drawn row by row, the rest is done for the batch."""
    tokens = np.array([row["input_ids"] for row in rows])
    hidden = np.array([random_spans(tokens.shape[1]) for _ in rows])
    inputs = without_hidden(tokens, sentinels(hidden.astype(np.int8)))
    labels = without_hidden(tokens, sentinels((~hidden).astype(np.int8)))
    batch = {"input_ids": inputs, "labels": labels, "decoder_input_ids": shifted_right(labels)}
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def random_spans(num_tokens: int) -> np.ndarray:
    """Which of a row's tokens are hidden. [T] bool"""
    num_hidden = round(num_tokens * 0.15)
    num_spans = round(num_hidden / 3)
    shown, hidden = parts(num_tokens - num_hidden, num_spans), parts(num_hidden, num_spans)
    begins = np.zeros(num_tokens, np.int8)
    begins[np.cumsum(np.stack([shown, hidden], axis=1).ravel())[:-1]] = 1
    return np.cumsum(begins) % 2 == 1


def parts(num_items: int, num_parts: int) -> np.ndarray:
    """Lengths of that many positive parts, at random."""
    begins = np.arange(num_items - 1) < num_parts - 1
    generator.shuffle(begins)
    _, lengths = np.unique(np.cumsum(np.pad(begins, (1, 0))), return_counts=True)
    return lengths


def sentinels(hidden: np.ndarray) -> np.ndarray:
    """A sentinel where a hidden span begins, -1 in the rest of it, 0 elsewhere. [B, T]"""
    begins = hidden - np.roll(hidden, 1, axis=-1) * hidden
    begins[:, 0] = hidden[:, 0]
    numbers = np.where(begins != 0, np.cumsum(begins, axis=-1), begins)
    return np.where(numbers != 0, SENTINEL + 1 - numbers, 0) - (hidden - begins)


def without_hidden(tokens: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """The tokens with sentinels in place of hidden spans, and the end token after them."""
    together = np.where(sentinels != 0, sentinels, tokens)
    kept = together[together >= 0].reshape(len(tokens), -1)
    return np.concatenate([kept, np.full((len(tokens), 1), EOS)], axis=-1)


def bart_collator(rows: list[dict[str, list[int]]]) -> Batch:
    """BART's: each row is altered, then all are padded."""
    labels = np.array([row["input_ids"] for row in rows])
    noisy = [infilled(row) for row in labels]
    inputs = np.full((len(noisy), max(map(len, noisy))), PAD)
    for row, sequence in enumerate(noisy):
        inputs[row, : len(sequence)] = sequence
    batch = {"input_ids": inputs, "attention_mask": (inputs != PAD).astype(np.int64)}
    batch |= {"labels": labels, "decoder_input_ids": shifted_right(labels)}
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def infilled(row: np.ndarray) -> np.ndarray:
    """A row with its sentences in random order, and a mask in place of each span."""
    sentences = np.split(row, np.flatnonzero(row == PERIOD) + 1)
    shuffled = np.concatenate([sentences[i] for i in generator.permutation(len(sentences))])
    budget, lengths = round(len(row) * 0.3), []
    while budget > 0:
        lengths.append(min(int(generator.poisson(3)), budget))
        budget -= lengths[-1]
    gaps = np.sort(generator.integers(0, len(row) - sum(lengths) + 1, len(lengths)))
    pieces, place, shown = [], 0, 0
    for gap, length in zip(gaps, lengths, strict=True):
        pieces += [shuffled[place : place + gap - shown], [MASK]]
        place += gap - shown + length
        shown = gap
    return np.concatenate([*pieces, shuffled[place:]])


def xlnet_collator() -> Callable:
    """The collator of transformers, with a tokenizer of the same number of tokens."""
    special = {"<pad>": PAD, "</s>": EOS, "<unk>": 2, "<mask>": MASK}
    names = {number: name for name, number in special.items()}
    words = models.WordLevel({names.get(i, f"word{i}"): i for i in range(SIZE)}, unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    return DataCollatorForPermutationLanguageModeling(tokenizer)


def timed(batches: Iterator[Any], num_batches: int) -> Side:
    """A side that returns the mean CPU time of a batch, in milliseconds."""

    def side() -> dict[str, float]:
        start = time.process_time()
        for _ in range(num_batches):
            next(batches)
        return {"ms": (time.process_time() - start) / num_batches * 1e3}

    return side


def main(rounds: int, step_seconds: float | None, folder: Path) -> None:
    """Compare each of the three with its collator, in turns."""
    for name, batch_size, objective, collator in [
        ("T5", 64, SpanCorruption(), t5_collator),
        ("BART", 64, TextInfilling(), bart_collator),
        ("XLNet", 8, Permutation(), xlnet_collator()),
    ]:
        block_size = objective.num_raw_tokens(512)
        stored = text(NUM_BLOCKS * block_size), block_size
        sides = {
            "lmft": timed(ours(*stored, objective, batch_size, folder / name), 50),
            "datasets + collator": timed(usual(*stored, collator, batch_size, folder / f"{name} rows"), 5),
        }
        print(f"{name}, {batch_size} × 512", flush=True)
        in_turns(sides, 1)  # warm-up
        compare(in_turns(sides, rounds), "ms", "datasets + collator")
        if step_seconds and name == "T5":
            side = timed(ours(*stored, objective, 8, folder / "T5 step"), 200)
            ms = min(side()["ms"] for _ in range(rounds))
            print(f"a batch of 8 for a step of T5-small: {ms:.2f} ms, {ms / step_seconds / 10:.2f}% of it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--step-seconds", type=float)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory_in_process()  # as training does
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as name:
        main(given.rounds, given.step_seconds, Path(name))
