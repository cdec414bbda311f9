"""The chat format: a row is a conversation, which a chat template renders."""

from collections.abc import Iterator, Mapping
from itertools import islice

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.formats.chat.conversation import Conversation
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.rows import RowReader, conversations
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.sources.rows import Place
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
        # Of the answers so far:
        self.num_unprompted = 0  # those that do not follow the whole generation prompt
        self.num_missing = 0  # those that are nowhere in the text

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: how they are read, template and encoder."""
        return f"{self.reader.fingerprint} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Iterator[Conversation]:
        """Yield the rendered conversations."""
        for _, conversation in self.placed(source, tally):
            self.num_unprompted += conversation.num_unprompted
            self.num_missing += conversation.num_missing
            yield conversation

    def placed(self, source: Source, tally: Tally) -> Iterator[tuple[Place, Conversation]]:
        """Yield the rendered conversations, each with its place."""
        return conversations(source, self.reader, tally)

    def place_of(self, source: Source, number: int) -> str:
        """Return file and row of a conversation, found by reading up to it."""
        place, _ = next(islice(self.placed(source, source.tally()), number, None))
        return str(place)

    @property
    def counts(self) -> dict[str, int]:
        """Counts of the conversations so far, of which `warnings` tells."""
        return {
            "straddling": self.encoder.num_straddling,
            "unprompted": self.num_unprompted,
            "missing": self.num_missing,
        }

    def warnings(self, counts: Mapping[str, int]) -> list[str]:
        """Warn about prompts that end otherwise in training than when the model is asked.

        Tokens may straddle prompt and answer, and a template may write answers that do not follow its
        generation prompt.
        """
        warnings = []
        if num := counts["straddling"]:
            what = f"{num} tokens hold the end of a prompt and the beginning"
            warnings.append(f"{what} of its answer: end prompts without a space")
        if num := counts["unprompted"]:
            what = f"in {num} answers the chat template does not write the end of its generation "
            what += "prompt, so prompts have tokens that the model did not see in training"
            warnings.append(f"{what}; data.chat_template_kwargs may change that prompt")
        if num := counts["missing"]:
            what = f"{num} messages of the assistant are not learnt: the chat template marks "
            warnings.append(f"{what}nothing of them as generated; another data.chat_template may")
        return warnings


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """Return the template that the user names, or the tokenizer's; None: rows can only be plain
    texts.
    """
    is_named = config.chat_template is not None or config.chat_template_kwargs
    if not is_named and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer, config.chat_template_kwargs)
