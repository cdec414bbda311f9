"""The rows that documents come from: file and row; of chats, the role of each token's message."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig, Split
from lmft.data.formats.base import DocumentEncoder
from lmft.data.formats.chat.conversation import Conversation
from lmft.data.preparation.job import FORMATS
from lmft.data.sources.rows import Place
from lmft.data.sources.source import open_source
from lmft.data.training_texts import training_source
from lmft.objectives.base import Objective

_MOST_READ = 100_000  # documents; of later ones the rows are not looked up


class ReadDocument(NamedTuple):
    """A document, as it is read from its row."""

    number: int  # in the store
    place: Place
    document: Any  # as the encoder takes it
    encoder: DocumentEncoder[Any]

    @property
    def content(self) -> str:
        """Its text without templates."""
        return self.encoder.content(self.document)


def read_documents(
    numbers: Collection[int],
    config: DataConfig,
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
) -> Iterator[ReadDocument]:
    """Yield the documents with these numbers, in order, read from their rows.

    The rows are read up to the last of them, and no further than 100,000 documents. Rows that were
    streamed are not read again over the network, so none of their documents comes.
    """
    if config.streaming:
        return
    wanted = set(numbers)
    source = open_source(config, split) or training_source(config)
    format = FORMATS[config.format](config, tokenizer, objective)
    last = min(max(wanted, default=0), _MOST_READ)
    for number, (place, document) in enumerate(format.placed(source, source.tally())):
        if number in wanted:
            yield ReadDocument(number, place, document, format.encoder)
        if number >= last:
            return


def add_rows(
    examples: Iterable[Mapping[str, Any]],
    config: DataConfig,
    split: Split,
    tokenizer: PreTrainedTokenizerFast,
    objective: Objective,
) -> None:
    """Add `place` to the examples' documents, and `speaker` to the tokens of chats.

    The place of a document that is not read again tells why.

    Args:
        examples: as `example` returns them; they are changed.
        config: the options of their source.
        split: that they are of.
        tokenizer: theirs.
        objective: theirs.
    """
    parts: dict[int, list[tuple[Mapping[str, Any], dict[str, Any]]]] = {}
    for example in examples:
        for document in example["documents"]:
            document["place"] = _unread(config, document["number"])
            parts.setdefault(document["number"], []).append((example, document))
    for found in read_documents(parts, config, split, tokenizer, objective):
        for example, part in parts[found.number]:
            part["place"] = str(found.place)
            if isinstance(found.document, Conversation) and found.document.speakers:
                _add_speakers(example, part, found.document, found.encoder)


def _unread(config: DataConfig, number: int) -> str:
    """Return what is said of the row of a document that is not read again."""
    if config.streaming:
        return f"{config.path}, document {number + 1} (streamed: its row is not known)"
    return f"document {number + 1} (rows are looked up in the first {_MOST_READ:,} documents)"


def _add_speakers(
    example: Mapping[str, Any], part: Mapping[str, Any], document: Conversation, encoder: DocumentEncoder
) -> None:
    """Add the role of its message to each token of a part of a conversation."""
    ids = encoder.encode([document]).tokens.tolist()
    tokens = example["text"][part["start"] : part["stop"]]
    begin = _place_in(ids, [token["id"] for token in tokens])
    if begin is None:
        return
    speakers = _speakers(document, encoder)[begin:]
    for token, speaker in zip(tokens, speakers, strict=False):
        if speaker is not None:
            token["speaker"] = speaker
    for stream in example["streams"]:
        for token in stream["tokens"]:
            speaker = example["text"][token["source"]].get("speaker") if "source" in token else None
            if speaker is not None:
                token["speaker"] = speaker


def _place_in(whole: list[int], part: list[int]) -> int | None:
    """Return where a part begins in a whole list; None if it is not in it."""
    for begin in range(len(whole) - len(part) + 1):
        if whole[begin : begin + len(part)] == part:
            return begin
    return None


def _speakers(document: Conversation, encoder: DocumentEncoder) -> list[str | None]:
    """Return the role of the message that each token begins in; None: it is of no message."""
    (encoding,) = encoder.backend.encodings([document.text])  # pyright: ignore[reportAttributeAccessIssue]
    spans = iter(document.speakers)
    start, end, role = next(spans)
    speakers: list[str | None] = []
    for first, _ in encoding.offsets:
        while first >= end:
            start, end, role = next(spans, (len(document.text), len(document.text) + 1, None))
        speakers.append(role if first >= start else None)
    return speakers
