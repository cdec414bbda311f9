"""Pictures of the text: cut into examples, in which order, resumed, and measured."""

import math
from pathlib import Path

import numpy as np

from docs.make import examples
from docs.make.examples import LINES
from docs.make.objective_pictures import MASKED
from docs.make.svg import MARGIN, WIDTH, Picture
from lmft.data.schedule.sampler import Schedule


def blocks() -> str:
    """Documents end to end, cut into blocks."""
    size = 16
    options = (*MASKED, f"data.block_size={size}", "objective.mlm_probability=0.15")
    picture = Picture("Documents in blocks")
    for number, example in enumerate(examples.batch(options, [0, 1])["examples"]):
        picture.heading(f"Block {number + 1}, {len(example['text'])} tokens")
        picture.tokens([{**token, "role": "context"} for token in example["text"]])
    picture.note(
        "A line marks where a document begins. There is no padding, and a document may continue in the next block."
    )
    return picture.svg()


def order() -> str:
    """The order of three epochs, and of other batch sizes."""
    picture = Picture("The order of the examples")
    for epoch in range(3):
        picture.heading(f"Epoch {epoch}: 12 examples, 4 at a time")
        _steps(picture, _micro_batches(4, epoch))
    picture.heading("Epoch 0 again: 2 at a time")
    _steps(picture, _micro_batches(2, 0))
    picture.heading("Epoch 0 again: two devices, 2 each")
    shares = [_micro_batches(2, 0, rank, 2) for rank in (0, 1)]
    _steps(picture, [part for both in zip(*shares, strict=True) for part in both])
    picture.note("The order depends only on seed and epoch: smaller batches and more devices divide the same order.")
    return picture.svg()


def _micro_batches(size: int, epoch: int, rank: int = 0, world_size: int = 1, start: int = 0) -> list[list[int]]:
    schedule = Schedule(12, size, seed=1, shuffled=True, rank=rank, world_size=world_size)
    schedule.start(epoch, start)
    return [micro_batch.examples.tolist() for micro_batch in schedule]


def _steps(picture: Picture, parts: list[list[int]], kind: str = "context") -> None:
    """Draw numbers of examples, those of a micro-batch close together."""
    x = float(MARGIN)
    for part in parts:
        for number in part:
            picture.box(x, picture.y, 22, 22, kind)
            picture.text(x + 11, picture.y + 15, str(number), anchor="middle")
            x += 24
        x += 8
    picture.y += 30


def store() -> str:
    """The token store, and two ways to cut it."""
    documents = _lengths(*LINES)
    picture = Picture("The token store")
    picture.heading(f"One file of {sum(documents)} tokens: {len(documents)} documents")
    _strip(picture, documents)
    for size in (16, 32):
        lengths = _lengths(f"data.block_size={size}")
        picture.heading(f"data.block_size={size}: {len(lengths)} blocks of the same file")
        _strip(picture, lengths)
    picture.heading(f"data.examples=lines: {len(documents)} lines of it")
    _strip(picture, documents)
    picture.note("Another size, order or objective reads the same file: nothing is tokenised again.")
    return picture.svg()


def perplexity() -> str:
    """The same text and the same kind of model under three vocabularies."""
    picture = Picture("Perplexities under three vocabularies")
    licence = Path(__file__).parents[2] / "LICENSE"
    of_licence = ("model=gpt2_tiny", f"data.train={licence}", f"data.validation={licence}", *LINES)
    for size in (300, 600, 1000):
        made = examples.parts(*of_licence, f"model.tokenizer.vocab_size={size}")
        ledger = made.corpus.ledger["validation"]
        value = ledger["unigram_perplexity"]
        bits = math.log2(value) * ledger["tokens"] / ledger["bytes"]
        picture.heading(f"A vocabulary of {size}: {ledger['tokens']:,} tokens")
        ids = made.tokenizer("under the terms of this License", add_special_tokens=False)["input_ids"]
        picture.tokens([{"text": made.tokenizer.decode([number]), "role": "context"} for number in ids])
        _bar(picture, "perplexity", value / 320, f"{value:.0f}")
        _bar(picture, "bits per byte", bits / 4.3, f"{bits:.2f}")
    picture.note("The text is lmft's LICENSE. Each model predicts tokens by their frequency.")
    return picture.svg()


def _bar(picture: Picture, name: str, share: float, value: str) -> None:
    left = 120
    width = (WIDTH - left - 70) * share
    picture.text(MARGIN, picture.y + 14, name, "note")
    picture.box(left, picture.y + 3, width, 14, "predicted")
    picture.text(left + width + 6, picture.y + 14, value)
    picture.y += 22


def _lengths(*options: str) -> list[int]:
    """The tokens of each example of the text, cut in a way."""
    cut = examples.parts(*MASKED, *options).corpus.examples["train"]
    return [int(cut.rows(np.array([number])).lengths[0]) for number in range(len(cut))]


def _strip(picture: Picture, lengths: list[int]) -> None:
    """Draw pieces side by side, as wide as they are long."""
    scale = (WIDTH - 2 * MARGIN) / sum(lengths)
    x = float(MARGIN)
    for number, length in enumerate(lengths):
        picture.box(x, picture.y, length * scale - 1.5, 20, ("context", "second")[number % 2])
        x += length * scale
    picture.y += 28


def resuming() -> str:
    """A run that is killed, and the same run resumed from its checkpoint."""
    whole = _micro_batches(2, 0) + _micro_batches(2, 1)
    checkpoint = 4
    killed = 6
    resumed = _micro_batches(2, 0, start=checkpoint) + _micro_batches(2, 1)
    picture = Picture("A run that is killed and resumed")
    picture.heading("Uninterrupted: the examples of each step")
    _rows_of_steps(picture, whole, 0)
    picture.heading(f"Saved after step {checkpoint}, killed in step {killed + 1}")
    _rows_of_steps(picture, whole[:killed], 0, lost_from=checkpoint)
    picture.heading("The same command again")
    _rows_of_steps(picture, resumed, checkpoint)
    picture.note("The checkpoint stores the position, 4. Steps 5 and 6 are repeated, with the same examples and masks.")
    return picture.svg()


def _rows_of_steps(picture: Picture, steps: list[list[int]], first: int, lost_from: int | None = None) -> None:
    """Draw steps under their numbers, six in a row."""
    for number, step in enumerate(steps, first):
        x = MARGIN + number % 6 * 58
        y = picture.y + 14 + (number // 6 - first // 6) * 44
        is_lost = lost_from is not None and number >= lost_from
        picture.text(x + 24, y, f"step {number + 1}", "note", "middle")
        for place, example in enumerate(step):
            picture.box(x + place * 25, y + 5, 23, 22, "lost" if is_lost else "context")
            picture.text(x + place * 25 + 11.5, y + 20, str(example), anchor="middle")
    picture.y += ((first + len(steps) - 1) // 6 - first // 6 + 1) * 44 + 6
