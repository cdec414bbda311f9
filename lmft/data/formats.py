"""What a row is: a text, a conversation, or a pair of texts. Each format turns the rows of a source into tokens."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast

from lmft.data.chat_encoder import ChatEncoder
from lmft.data.chat_template import ChatTemplate
from lmft.data.chats import conversations
from lmft.data.config import DataConfig
from lmft.data.pairs import SIDES, Pair, PairEncoder, pairs
from lmft.data.sources import Source, documents
from lmft.data.tokenize import DocumentEncoder, Encoder
from lmft.objectives.base import ANSWER, LAST_ANSWER

TRAIN_ON = {"all": 0, "assistant": int(ANSWER), "completion": int(ANSWER), "last_turn": int(LAST_ANSWER)}
"""What the loss counts: the flag of its tokens; 0: every token."""


class Format(Protocol):
    """Between a source's rows and a store's tokens."""

    @property
    def encoder(self) -> DocumentEncoder:
        """Turns documents into tokens."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the tokens or flags of some row might."""
        ...

    def documents(self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]) -> Iterator[Any]:
        """What the encoder takes, row by row; `cleaned` counts rows dropped and mended, by reason."""
        ...

    def place_of(self, source: Source, number: int) -> str:
        """Where a document stands, for messages; found by reading up to it again."""
        ...

    def warnings(self) -> list[str]:
        """What a user should know of the documents tokenised so far."""
        ...


class TextFormat:
    """A row is a text, in the column `data.text_column`."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.text_column, self.encoder = config.text_column, Encoder(tokenizer, word_starts)

    @property
    def fingerprint(self) -> str:
        """Column and encoder."""
        return f"{self.text_column} {self.encoder.fingerprint}"

    def documents(self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]) -> Iterator[str]:
        """The texts."""
        return documents(source, self.text_column, cleaned, advance)

    def place_of(self, source: Source, number: int) -> str:
        """Its number suffices: texts are counted as they come."""
        return f"{source.name}, document {number + 1}"

    def warnings(self) -> list[str]:
        """None: whatever is mended is counted."""
        return []


class ChatFormat:
    """A row is a conversation, or a prompt and its completion, in the columns that `data.columns` names."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.columns = config.columns
        self.template = chat_template(config, tokenizer)
        self.encoder = ChatEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Columns, template and encoder."""
        source = self.template.source if self.template else ""
        template = hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
        return f"{sorted(self.columns.items())} {template} {self.encoder.fingerprint}"

    def documents(self, source: Source, cleaned: Counter[str], advance: Callable[[int], object] | None = None) -> Any:
        """The conversations, rendered."""
        return (each for _, each in conversations(source, self.columns, self.template, cleaned, advance))

    def place_of(self, source: Source, number: int) -> str:
        """File and row."""
        place, _ = next(islice(conversations(source, self.columns, self.template, Counter()), number, None))
        return str(place)

    def warnings(self) -> list[str]:
        """That answers begin inside tokens: of a prompt alone, the tokenizer makes other tokens at its end."""
        count = self.encoder.num_straddling
        many = f"{count} tokens hold the end of a prompt and the beginning of its answer: end prompts without a space"
        return [many] if count else []


class PairsFormat:
    """A row is a source and a target, in the columns that `data.columns` names."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, word_starts: bool):
        self.columns, self.encoder = config.columns, PairEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Columns and encoder."""
        return f"pairs {[self.columns[side] for side in SIDES]} {self.encoder.fingerprint}"

    def documents(self, source: Source, cleaned: Counter[str], advance: Callable[[int], object]) -> Iterator[Pair]:
        """The pairs."""
        return (pair for _, pair in pairs(source, self.columns, cleaned, advance))

    def place_of(self, source: Source, number: int) -> str:
        """File and row."""
        place, _ = next(islice(pairs(source, self.columns, Counter()), number, None))
        return str(place)

    def warnings(self) -> list[str]:
        """None: a row that is no pair is refused."""
        return []


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """The one the user names, or the tokenizer's own; None where there is none, which texts need not."""
    if config.chat_template is None and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer)


FORMATS: dict[str, Callable[[DataConfig, PreTrainedTokenizerFast, bool], Format]] = {
    "text": TextFormat,
    "chat": ChatFormat,
    "pairs": PairsFormat,
}
