"""Batches of T5, BART and XLNet, beside collators that go row by row.

    python benchmarks/collate.py [--rounds 9]

The other side of T5 and BART is written here as such collators usually are: a row at a time, random numbers from
numpy's generator. XLNet's is `DataCollatorForPermutationLanguageModeling` of transformers. Both sides begin with the
same rows: 64 of the length that makes 512 tokens of input, or 8 of 512 for XLNet.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForPermutationLanguageModeling
from turns import Side, compare, in_turns

from lmft.data.noise import TokenNoise
from lmft.objectives.base import IGNORED, Objective, Rows, Vocabulary
from lmft.objectives.permutation import Permutation
from lmft.objectives.span_corruption import SpanCorruption
from lmft.objectives.text_infilling import TextInfilling

SIZE, MASK, PAD, EOS, START = 32_100, 31_999, 0, 1, 0
PERIOD = 5
SENTINELS = [SIZE - 1 - i for i in range(100)]
VOCABULARY = Vocabulary(
    SIZE,
    MASK,
    np.arange(3, MASK),
    PAD,
    eos_id=EOS,
    ids={f"<extra_id_{i}>": sentinel for i, sentinel in enumerate(SENTINELS)},
    decoder_start_id=START,
    sentence_end_ids=np.array([PERIOD]),
)
generator = np.random.default_rng(0)


def random_rows(num: int, length: int) -> Rows:
    """Random tokens in sentences of 20, on average."""
    tokens = generator.integers(3, MASK, (num, length))
    tokens[generator.random(tokens.shape) < 1 / 20] = PERIOD
    return Rows(tokens, np.zeros(tokens.shape, np.uint8), np.full(num, length), np.arange(num))


def segmented(num_items: int, num_segments: int) -> np.ndarray:
    """Lengths of that many positive segments, at random."""
    first = np.arange(num_items - 1) < num_segments - 1
    generator.shuffle(first)
    return np.bincount(np.concatenate(([0], np.cumsum(first))), minlength=num_segments)


def span_corrupted(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of T5, of one row."""
    num_hidden = round(len(row) * 0.15)
    num_spans = round(num_hidden / 3)
    shown, hidden = segmented(len(row) - num_hidden, num_spans), segmented(num_hidden, num_spans)
    inputs, targets, place = [], [], 0
    for number, (num_shown, num_gone) in enumerate(zip(shown, hidden, strict=True)):
        inputs += [row[place : place + num_shown], [SENTINELS[number]]]
        place += num_shown
        targets += [[SENTINELS[number]], row[place : place + num_gone]]
        place += num_gone
    return np.concatenate([*inputs, [EOS]]), np.concatenate([*targets, [EOS]])


def infilled(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of BART, of one row."""
    ends = np.flatnonzero(row == PERIOD) + 1
    sentences = np.split(row, ends)
    text = np.concatenate([sentences[i] for i in generator.permutation(len(sentences))])
    budget, lengths = round(len(row) * 0.3), []
    while budget > 0:
        lengths.append(min(int(generator.poisson(3)), budget))
        budget -= lengths[-1]
    gaps = np.sort(generator.integers(0, len(row) - sum(lengths) + 1, len(lengths)))
    parts, place, shown = [], 0, 0
    for gap, length in zip(gaps, lengths, strict=True):
        parts += [text[place : place + gap - shown], [MASK]]
        place += gap - shown + length
        shown = gap
    return np.concatenate([*parts, text[place:]]), row


def batch_row_by_row(rows: Rows, corrupt: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> dict:
    """Corrupts each row, then pads all of them."""
    inputs, targets = zip(*(corrupt(row) for row in rows.tokens), strict=True)

    def padded(sequences: tuple[np.ndarray, ...], fill: int) -> np.ndarray:
        rectangle = np.full((len(sequences), max(map(len, sequences))), fill)
        for row, sequence in enumerate(sequences):
            rectangle[row, : len(sequence)] = sequence
        return rectangle

    labels = padded(targets, IGNORED)
    given = np.full_like(labels, START)
    given[:, 1:] = np.where(labels[:, :-1] == IGNORED, PAD, labels[:, :-1])
    mask = padded(tuple(np.ones(len(sequence), np.int64) for sequence in inputs), 0)
    return {"input_ids": padded(inputs, PAD), "attention_mask": mask, "decoder_input_ids": given, "labels": labels}


def timed(make: Callable[[], object], repeats: int) -> Side:
    """Milliseconds of processor time that a batch takes, the mean of some."""

    def side() -> dict[str, float]:
        start = time.process_time()
        for _ in range(repeats):
            make()
        return {"ms": (time.process_time() - start) / repeats * 1e3}

    return side


def ours(objective: Objective, rows: Rows) -> Side:
    """Batches of another epoch each."""
    epochs = iter(range(10**9))
    return timed(lambda: objective(rows, VOCABULARY, TokenNoise(0, next(epochs), rows.numbers)), 20)


def main(rounds: int) -> None:
    """Each of the three beside its other side, in turns."""
    spans, whole, few = random_rows(64, SpanCorruption().num_raw_tokens(512)), random_rows(64, 512), random_rows(8, 512)
    special = [PAD, EOS, 2, MASK]
    tokenizer: Any = SimpleNamespace(
        mask_token="",
        mask_token_id=MASK,
        pad_token="",
        pad_token_id=PAD,
        get_special_tokens_mask=lambda ids, **_: [int(i in special) for i in ids],  # as those of transformers do
    )
    collator = DataCollatorForPermutationLanguageModeling(tokenizer)
    for name, objective, rows, theirs in [
        ("T5 64 × 512", SpanCorruption(), spans, lambda: batch_row_by_row(spans, span_corrupted)),
        ("BART 64 × 512", TextInfilling(), whole, lambda: batch_row_by_row(whole, infilled)),
        ("XLNet 8 × 512", Permutation(), few, lambda: collator.torch_mask_tokens(torch.tensor(few.tokens))),
    ]:
        print(name)
        sides = {"lmft": ours(objective, rows), "row by row": timed(theirs, 3)}
        in_turns(sides, 2)  # so that nobody is timed cold
        compare(in_turns(sides, rounds), "ms", "row by row")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    main(parser.parse_args().rounds)
