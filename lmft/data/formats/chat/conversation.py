"""A conversation: as messages, and as text with the places of its answers."""

from dataclasses import dataclass, field
from typing import Any

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Chat:
    """A row's messages, and what else its rendering depends on."""

    messages: Messages
    tools: list[dict[str, Any]] | None = None  # as JSON schemas
    # Of each message: whether it may be an answer to learn, else it is context; None: all may.
    is_learnt: list[bool] | None = None
    variables: dict[str, Any] = field(default_factory=dict)  # of the template, as `enable_thinking`

    @property
    def answers(self) -> list[int]:
        """The numbers of the assistant's messages that may be learnt."""
        is_learnt = self.is_learnt or [True] * len(self.messages)
        return [
            i
            for i, message in enumerate(self.messages)
            if message["role"] == "assistant" and is_learnt[i]
        ]


@dataclass(frozen=True)
class Conversation:
    """A conversation as text, and the places of its answers."""

    text: str  # as the template renders it
    # [start, end) of each part of an answer in `text`, in characters, in order; empty: only context.
    answers: list[tuple[int, int]]
    content: str  # texts of the messages without the template
    # By a chat template, which writes its own separators; else a prompt and its completion.
    is_rendered: bool
    num_last: int = 1  # parts that the last answer has
    num_unprompted: int = 0  # answers that do not follow the whole generation prompt
    num_missing: int = 0  # messages of the assistant to learn of which the text tells no answer
    whole: str | None = None  # `content` of the conversation that this is the beginning of
    # [start, end) in `text` of what a template wrote for a message, and the message's role, in order.
    speakers: list[tuple[int, int, str]] = field(default_factory=list)
    # What was rendered; None: a text.
    chat: Chat | None = field(default=None, compare=False)
