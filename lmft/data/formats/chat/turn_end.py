"""The tokens that end an assistant's turn, found in conversations that the template renders."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerFast

from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.encoder import ChatEncoder
from lmft.data.formats.chat.template import ChatTemplate
from lmft.errors import UserError
from lmft.objectives.base import ANSWER

# Two words each, so that a word that is unknown to the vocabulary is not only at an answer's end.
_QUESTION = {"role": "user", "content": "one two"}
_ANSWER = {"role": "assistant", "content": "three four"}
_CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "three four"}}}
_PARAMETERS = {"type": "object", "properties": {"word": {"type": "string", "description": "a word"}}}
_TOOL = {"name": "look_up", "description": "look a word up", "parameters": _PARAMETERS}


@dataclass(frozen=True)
class TurnEnds:
    """The tokens that end the answers of a template."""

    ids: list[int]  # each ends answers and is nowhere else in one
    is_open: bool  # whether there are answers that end with none of them


def turn_ends(template: ChatTemplate, tokenizer: PreTrainedTokenizerFast) -> TurnEnds:
    """Return the tokens that end an answer of the template, as it is trained.

    Small conversations are rendered and encoded as rows are. The special and added tokens after an
    answer's text end it, unless they are also before the end of one: gpt-oss writes `<|end|>` after the
    thoughts of an answer that ends with `<|return|>`.

    Args:
        template: the template of the conversations.
        tokenizer: the tokenizer, with the template's special tokens.
    """
    encoder = ChatEncoder(tokenizer)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ends: list[int] = []
    inside: set[int] = set()
    num_open = 0
    for chat in _chats():
        answer = _answer(chat, template, encoder)
        behind = _behind_text(answer, tokenizer, special)
        inside.update(answer[: len(answer) - len(behind)])
        if chat.tools:
            behind = behind[-1:]  # those before it may close the call
        found = [token_id for token_id in behind if token_id in special]
        num_open += bool(answer) and not found
        ends += found
    ids = [token_id for token_id in dict.fromkeys(ends) if token_id not in inside]
    return TurnEnds(ids, is_open=num_open > 0 or not ids)


def _behind_text(answer: list[int], tokenizer: PreTrainedTokenizerFast, special: set[int]) -> list[int]:
    """Return the special tokens and the white space at an answer's end."""
    at = len(answer)
    while at and (answer[at - 1] in special or not str(tokenizer.decode(answer[at - 1 : at])).strip()):
        at -= 1
    return answer[at:]


def _chats() -> Iterator[Chat]:
    """Yield conversations of one answer: at the end, before a question, with thoughts, and a call."""
    thinking = {**_ANSWER, "reasoning_content": "five six", "thinking": "five six"}
    calling: dict[str, Any] = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    yield Chat([_QUESTION, _ANSWER])
    yield Chat([_QUESTION, _ANSWER, _QUESTION])
    yield Chat([_QUESTION, thinking])
    yield Chat([_QUESTION, calling], tools=[{"type": "function", "function": _TOOL}])


def _answer(chat: Chat, template: ChatTemplate, encoder: ChatEncoder) -> list[int]:
    """Return the tokens of a conversation's answer; none if the template has no place for it.

    The rows that are trained on are rendered later, and refused with their place if they cannot be.
    """
    try:
        conversation = template.render(chat)
    except UserError:
        return []
    encoded = encoder.encode([conversation])
    return encoded.tokens[(encoded.flags & ANSWER).astype(bool)].tolist()
