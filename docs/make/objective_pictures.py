"""Pictures of what a model reads and predicts, and of what each prediction sees."""

import tempfile
from typing import Any

from docs.make import examples
from docs.make.examples import CHATS, LINES, PAIRS, without_padding
from docs.make.svg import Picture

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
        tokens = _stream(example, stream["name"])
        predicts = any("target" in token for token in tokens)
        picture.heading(SEQUENCES[stream["name"]] + (", and predicts below (blue)" if predicts else ""))
        picture.tokens(tokens, targets=True)
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
