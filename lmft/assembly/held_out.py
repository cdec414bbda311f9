"""Conversations of the validation text as probes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lmft.assembly.parts import Parts
from lmft.assembly.scored_rows import placed, source_of_split
from lmft.data.formats.chat.conversation import Chat
from lmft.data.preparation.job import FORMATS

_MOST_TRIED = 1000  # conversations from which those are chosen that a model can be asked


def held_out_conversations(parts: Parts) -> list[dict[str, Any]]:
    """Return the first conversations of the validation text as prompts: all before the last answer.

    Their number is `data.probe_conversations`. Conversations that leave no room for an answer are
    skipped.
    """
    count = parts.data.probe_conversations
    if not count or not parts.corpus.validations or not parts.module_class.family.is_causal:
        return []
    prompts = (_prompt(chat) for chat in islice(_chats(parts), _MOST_TRIED) if chat.answers)
    return [
        *islice((prompt for prompt in prompts if prompt["chat"] and parts.can_answer(prompt)), count)
    ]


def _chats(parts: Parts) -> Iterator[Chat]:
    configs = parts.data.by_source() or {"": parts.data}
    for split in parts.corpus.validations:
        config = configs[split.partition("/")[2]]
        if config.kind != "chat":
            continue
        format = FORMATS[config.kind](config, parts.tokenizer, parts.objective)
        source, share = source_of_split(config, "validation")
        for _, conversation in placed(format, source, source.tally(), share):
            if conversation.chat is not None:
                yield conversation.chat


def _prompt(chat: Chat) -> dict[str, Any]:
    prompt: dict[str, Any] = {"chat": chat.messages[: chat.answers[-1]]}
    if chat.tools:
        prompt["tools"] = chat.tools
    if chat.variables:
        prompt["chat_template_kwargs"] = chat.variables
    return prompt
