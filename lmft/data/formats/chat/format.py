"""The chat format: a row is a conversation, which a chat template renders."""

from collections.abc import Iterator
from itertools import islice

from transformers import PreTrainedTokenizerFast

from lmft.data.config import DataConfig
from lmft.data.fingerprint import text_fingerprint
from lmft.data.formats.chat.conversation import Conversation
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.rows import conversations
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.objectives.base import Objective

_VERSION = 2  # of how answers are found; a change makes new token stores


class ChatFormat:
    """A row is a conversation, or a prompt and its completion, in the columns that `data.columns`
    names.
    """

    def __init__(self, config: DataConfig, tokenizer: PreTrainedTokenizerFast, objective: Objective):
        self.columns = config.columns
        self.turns = config.turns
        self.template = chat_template(config, tokenizer)
        self.encoder = ChatEncoder(tokenizer)
        self.num_unprompted = 0  # answers so far that do not follow the whole generation prompt

    @property
    def fingerprint(self) -> str:
        """Cache key of the tokenised rows: columns, template, turns and encoder."""
        template = text_fingerprint(self.template.source if self.template else "")
        turns = f"{self.turns} v{_VERSION}"
        return f"{sorted(self.columns.items())} {template} {turns} {self.encoder.fingerprint}"

    def documents(self, source: Source, tally: Tally) -> Iterator[Conversation]:
        """Yield the rendered conversations."""
        for _, conversation in self._placed(source, tally):
            self.num_unprompted += conversation.num_unprompted
            yield conversation

    def place_of(self, source: Source, number: int) -> str:
        """Return file and row of a conversation, found by reading up to it."""
        place, _ = next(islice(self._placed(source, source.tally()), number, None))
        return str(place)

    def _placed(self, source: Source, tally: Tally) -> Iterator[tuple[Place, Conversation]]:
        return conversations(source, self.columns, self.template, tally, self.turns)

    def warnings(self) -> list[str]:
        """Warn about prompts that end otherwise in training than when the model is asked.

        Tokens may straddle prompt and answer, and a template may write answers that do not follow its
        generation prompt.
        """
        warnings = []
        if self.encoder.num_straddling:
            what = f"{self.encoder.num_straddling} tokens hold the end of a prompt and the beginning"
            warnings.append(f"{what} of its answer: end prompts without a space")
        if self.num_unprompted:
            what = f"the chat template writes {self.num_unprompted} answers without the end of its "
            what += "generation prompt: asked, the model will be given more than it was trained on"
            warnings.append(f"{what}; data.chat_template_kwargs may change that prompt")
        return warnings


def chat_template(config: DataConfig, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate | None:
    """Return the template that the user names, or the tokenizer's; None: rows can only be plain
    texts.
    """
    if config.chat_template is None and not tokenizer.chat_template:
        return None
    return ChatTemplate.load(config.chat_template, tokenizer, config.chat_template_kwargs)
