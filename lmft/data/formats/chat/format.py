"""The chat format: a row is a conversation, which a chat template renders."""

from itertools import islice
from typing import Any

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.rows import RowReader, conversations
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.objectives.base import Objective


class ChatFormat:
    """A row is a conversation, in one of the layouts of data sets, or a text with marked answers."""

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, objective: Objective):
        self.template = None
        if config.format != "marked_text":
            self.template = chat_template(config, tokenizer)
        self.reader = RowReader(config, self.template)
        self.encoder = ChatEncoder(tokenizer)

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: how they are read, template and encoder."""
        return f"{self.reader.fingerprint} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Any:
        """Yield the rendered conversations."""
        placed = conversations(source, self.reader, tally)
        return (conversation for _, conversation in placed)

    def placed(self, source: Source, tally: Tally) -> Any:
        """Yield the rendered conversations, each with its place."""
        return conversations(source, self.columns, self.template, tally)

    def place_of(self, source: Source, number: int) -> str:
        """Return file and row of a conversation, found by reading up to it."""
        place, _ = next(islice(conversations(source, self.reader, source.tally()), number, None))
        return str(place)

    def warnings(self) -> list[str]:
        """Warn about tokens that straddle prompt and answer: a prompt alone would end with other
        tokens.
        """
        count = self.encoder.num_straddling
        if not count:
            return []
        what = f"{count} tokens hold the end of a prompt and the beginning of its answer"
        return [f"{what}: end prompts without a space"]


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """Return the template that the user names, or the tokenizer's; None: rows can only be plain
    texts.
    """
    if config.chat_template is None and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer)
