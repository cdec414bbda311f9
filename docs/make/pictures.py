"""The pictures of the documentation, drawn from real batches of lmft.

python -m docs.make.pictures     writes docs/pictures/*.svg anew
"""

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from docs.make import examples
from docs.make.examples import CHATS, LINES, PAIRS, without_padding
from docs.make.svg import MARGIN, WIDTH, Picture
from lmft.data.schedule.sampler import Schedule

FOLDER = Path(__file__).parents[1] / "pictures"
MASKED = ("model=distilbert_tiny", "model.tokenizer.vocab_size=400", "objective.mlm_probability=0.4")
CAUSAL = ("model=gpt2_tiny", "model.tokenizer.vocab_size=440")
WORDS = ("model.tokenizer.algorithm=bpe", "model.tokenizer.vocab_size=520")
SPANS = ("model=t5_tiny", *WORDS, "objective.noise_density=0.4", "objective.mean_noise_span_length=1.5")
INFILLING = ("model=bart_tiny", "model.tokenizer.vocab_size=440")
PERMUTED = ("model=xlnet_tiny", *WORDS)
SHARED = {"context": "read, not predicted", "hidden": "hidden, predicted"}
MARKER = {"marker": "replacement"}
SEQUENCES = {"input_ids": "The model reads", "decoder_input_ids": "The decoder reads"}


def _stream(example: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The tokens of one of an example's sequences, without padding."""
    found = next(stream for stream in example["streams"] if stream["name"] == name)
    return without_padding(found["tokens"])


def _objective(title: str, example: dict[str, Any], legend: dict[str, str]) -> str:
    """The text of an example, and the sequences that the model reads."""
    picture = Picture(title)
    picture.heading("The text")
    picture.tokens(without_padding(example["text"]))
    for stream in example["streams"]:
        picture.heading(f"{SEQUENCES[stream['name']]}, and predicts below (blue)")
        picture.tokens(_stream(example, stream["name"]), targets=True)
    picture.legend(legend)
    return picture.svg()


def masked() -> str:
    """Tokens hidden at random: masked, replaced or kept."""
    others = {"replaced": "another token shown", "kept": "shown, still predicted"}
    example = examples.example(*LINES, *MASKED, epoch=18)
    return _objective("Masked language modelling", example, SHARED | MARKER | others)


def causal() -> str:
    """Each token predicted from those before it."""
    legend = {"predicted": "predicted, then read", "context": "read, not predicted"}
    return _objective("Causal language modelling", examples.example(*LINES, *CAUSAL), legend)


def spans() -> str:
    """T5: spans replaced by sentinels."""
    return _objective("T5's span corruption", examples.example(*LINES, *SPANS, epoch=1), SHARED | MARKER)


def infilling() -> str:
    """BART: spans replaced by one mask each, sentences in another order."""
    example = examples.example(*LINES, *INFILLING, number=12, epoch=2)
    legend = {"predicted": "read and predicted", "hidden": "hidden, predicted", **MARKER}
    return _objective("BART's noise", example, legend)


def permutation() -> str:
    """XLNet: spans predicted in a random order."""
    example = examples.example(*LINES, *PERMUTED, "objective.plm_probability=0.4", number=2, epoch=3)
    tokens = _stream(example, "input_ids")
    picture = Picture("XLNet's permutation: what each prediction sees")
    picture.heading("The text")
    picture.tokens(without_padding(example["text"]))
    picture.heading("Each prediction (row) sees the blue tokens")
    asked = sorted((token for token in tokens if "order" in token), key=lambda token: token["order"])
    _sight(picture, asked, without_padding(example["text"]))
    picture.note("Predictions are made from top to bottom; each one sees the tokens predicted above it.")
    return picture.svg()


def _sight(picture: Picture, asked: list[dict[str, Any]], columns: list[dict[str, Any]]) -> None:
    seen = [[_sees(token, column) for column in range(len(columns))] for token in asked]
    names = [token["target"]["text"].strip() for token in asked]
    picture.matrix(names, [column["text"].strip() for column in columns], seen)


def _sees(token: dict[str, Any], column: int) -> bool:
    return any(start <= column < stop for start, stop in token["sees"])


def sight() -> str:
    """Draw what each prediction sees in a masked, a causal and a sequence-to-sequence model."""
    picture = Picture("What each prediction sees")
    for heading, options, stream in (
        ("Masked: both sides", MASKED, "input_ids"),
        ("Causal: what comes before", CAUSAL, "input_ids"),
        ("T5's decoder: what it has written", SPANS, "decoder_input_ids"),
    ):
        tokens = _stream(examples.example(*LINES, *options, number=7, epoch=1), stream)
        picture.heading(heading)
        _sight(picture, [token for token in tokens if "target" in token], tokens)
    picture.note("A row is a prediction, a column a token that is read. T5's decoder also sees the whole input.")
    return picture.svg()


def teacher_forcing() -> str:
    """The decoder reads the true answer while it predicts it."""
    options = ("model=t5_tiny", *WORDS, "objective=pairs", "data=pairs", f"data.train={PAIRS}")
    example = examples.example(*options, number=0)
    picture = Picture("Teacher forcing")
    picture.heading("The encoder reads the source")
    picture.tokens(_stream(example, "input_ids"))
    picture.heading("The decoder reads the answer shifted by one token,")
    picture.note("and predicts at each position the token below it (blue).")
    picture.tokens(_stream(example, "decoder_input_ids"), targets=True)
    return picture.svg()


def answers() -> str:
    """A chat: the loss counts the answer alone."""
    options = ("model=gpt2_tiny", "data=chat", f"data.train={CHATS}", "data.chat_template=chatml")
    with tempfile.TemporaryDirectory() as folder:
        examples.parts(*CAUSAL).tokenizer.save_pretrained(folder)
        given = ("model.tokenizer.train=false", f"model.tokenizer.name_or_path={folder}")
        example = examples.example(*options, *LINES, *given)
    picture = Picture("A chat: only the answer is a target")
    picture.heading("The model reads, and predicts below (blue)")
    picture.tokens(_stream(example, "input_ids"), targets=True)
    picture.legend({"context": "read only", "predicted": "the answer: counted in the loss"})
    return picture.svg()


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


def isolation() -> str:
    """Documents of a block kept apart, or not."""
    picture = Picture("Documents kept apart")
    for isolated in ("false", "true"):
        options = (*CAUSAL, "data.block_size=18", f"data.isolate_documents={isolated}")
        tokens = _stream(examples.example(*options), "input_ids")
        picture.heading(f"data.isolate_documents={isolated}")
        _sight(picture, [token for token in tokens if "target" in token], tokens)
    picture.note("Above, the second sentence sees the first one. Below, it does not.")
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


def noise() -> str:
    """The masks of one sentence in three epochs, twice, and in validations."""
    options = (*LINES, *MASKED, "objective.mlm_probability=0.25")
    picture = Picture("The noise of one sentence")
    for epoch in range(3):
        picture.heading(f"Epoch {epoch}")
        picture.tokens(_stream(examples.example(*options, epoch=epoch), "input_ids"))
    picture.heading("Epoch 2 again, after a restart, in another batch")
    again = examples.batch(options, [5, 0, 3], epoch=2)["examples"][1]
    picture.tokens(_stream(again, "input_ids"))
    picture.note("The masks are a function of the seed, the epoch, the example and the position in it.")
    return picture.svg()


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


PICTURES: dict[str, Callable[[], str]] = {
    "masked": masked,
    "causal": causal,
    "spans": spans,
    "infilling": infilling,
    "permutation": permutation,
    "sight": sight,
    "teacher-forcing": teacher_forcing,
    "answers": answers,
    "blocks": blocks,
    "isolation": isolation,
    "order": order,
    "noise": noise,
    "store": store,
    "perplexity": perplexity,
    "resuming": resuming,
}


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(exist_ok=True)
    with examples.own_cache():
        for name, draw in PICTURES.items():
            (FOLDER / f"{name}.svg").write_text(draw(), "utf-8")


if __name__ == "__main__":
    main()
