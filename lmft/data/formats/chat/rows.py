"""Rows to conversations: a row is a chat, or a prompt and its completion."""

from collections.abc import Iterator, Mapping
from typing import Any

from lmft.data.formats.chat.conversation import Chat, Conversation, Messages
from lmft.data.formats.chat.template import NO_TEMPLATE_FIX, ChatTemplate
from lmft.data.sources.cleaning import clean_rows, type_name
from lmft.data.sources.rows import Place
from lmft.data.sources.source import Source
from lmft.data.sources.tally import Tally
from lmft.errors import UserError, did_you_mean

ROLES = ("system", "developer", "user", "assistant", "tool")
_ROLES_ELSEWHERE = {  # other names in use, and the role they stand for
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
}
_SHAPE = 'messages are [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def conversations(
    source: Source,
    columns: Mapping[str, str],
    template: ChatTemplate | None,
    tally: Tally,
    turns: str = "together",
) -> Iterator[tuple[Place, Conversation]]:
    """Yield each row's place and conversation; `_conversations_of` tells what rows can be.

    Args:
        source: where rows are read.
        columns: the user's names of the columns `messages`, `prompt` and `completion`.
        template: renders messages; None: rows can only be prompts and completions that are text.
        tally: counts bytes, rows cleaned, by reason, and as `none` rows without a value.
        turns: "together": a row's messages are one conversation; "each": one for each answer, with the
            messages before it.

    Raises: UserError, naming the row, for what is not a conversation, for what the template cannot
    render, and for what cannot be read.
    """
    rows = clean_rows(source, lambda row: _conversations_of(row, columns, template, turns), tally)
    return ((place, conversation) for place, several in rows for conversation in several)


def _conversations_of(
    row: dict, columns: Mapping[str, str], template: ChatTemplate | None, turns: str
) -> list[Conversation] | None:
    """Make a row's conversations; None if it has no value.

    A row has `messages`, or a `prompt` and a `completion` that are both text or both messages. Its
    `tools` are given to the template.
    """
    messages = row.get(columns["messages"])
    prompt = row.get(columns["prompt"])
    completion = row.get(columns["completion"])
    if messages is not None:
        messages = _checked_messages(messages, columns["messages"])
        return _render(messages, None, row, template, turns)
    if prompt is None and completion is None:
        _check_columns(row, columns)
        return None
    for name, value in (("prompt", prompt), ("completion", completion)):
        if value is None:
            raise UserError(
                f"there is no '{columns[name]}'",
                fix=f"data.columns.{name}=NAME of the column that holds it",
            )
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _checked_messages(prompt, columns["prompt"])
        after = _checked_messages(completion, columns["completion"])
        is_learnt = [False] * len(before) + [True] * len(after)
        return _render(before + after, is_learnt, row, template, turns)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        what = f"'{columns['prompt']}' holds {type_name(prompt)}"
        what += f" and '{columns['completion']}' {type_name(completion)}"
        raise UserError(what, fix="both are text, or both are lists of messages")
    if not completion.strip():
        raise UserError(
            f"'{columns['completion']}' is empty", fix="leave the row out, or give the text to be learnt"
        )
    text = prompt + completion
    return [Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)]


def _render(
    messages: Messages,
    is_learnt: list[bool] | None,
    row: dict,
    template: ChatTemplate | None,
    turns: str,
) -> list[Conversation]:
    """Render messages, with the row's tools."""
    tools = row.get("tools")
    if tools is not None and not (
        isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)
    ):
        raise UserError(
            f"'tools' holds {type_name(tools)}, not a list of objects", fix="one JSON schema a tool"
        )
    if template is None:
        raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
    chat = Chat(messages, tools, is_learnt)
    return template.render_each(chat) if turns == "each" else [template.render(chat)]


def _checked_messages(messages: object, column: str) -> Messages:
    """Return the messages without keys that have no value. Raises: UserError for what is not a
    message.
    """
    if not isinstance(messages, list):
        raise UserError(f"'{column}' holds {type_name(messages)}, not a list of messages", fix=_SHAPE)
    if not messages:
        raise UserError(f"'{column}' is empty", fix="leave the row out, or give its messages")
    return [
        _checked_message(message, f"message {i} of '{column}'") for i, message in enumerate(messages, 1)
    ]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{name} is {type_name(message)}, not an object", fix=_SHAPE)
    message = {key: value for key, value in message.items() if value is not None}
    if "role" not in message:
        fix = _SHAPE
        if {"from", "value"} & message.keys():
            fix = "rename 'from' to 'role' and 'value' to 'content', human to user and gpt to assistant"
        raise UserError(f"{name} has no 'role' but {', '.join(message) or 'nothing'}", fix=fix)
    role = message["role"]
    content = message.get("content", "")
    if role not in ROLES:
        known = _ROLES_ELSEWHERE.get(str(role).lower())
        hint = f" (did you mean '{known}'?)" if known else did_you_mean(str(role), ROLES)
        raise UserError(f"{name} has an unknown role {role!r}{hint}", fix=f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"the content of {name} is {type_name(content)}, not text", fix=_SHAPE)
    if not content.strip() and not (role == "assistant" and message.get("tool_calls")):
        raise UserError(f"{name} has no content", fix="leave the message out, or give its text")
    return message


def _check_columns(row: dict, columns: Mapping[str, str]) -> None:
    if not {columns["messages"], columns["prompt"], columns["completion"]} & row.keys():
        name = columns["messages"]
        others = ", ".join(row) or "nothing"
        what = (
            f"there is neither '{name}'{did_you_mean(name, row)} nor '{columns['prompt']}', but {others}"
        )
        raise UserError(
            what, fix="data.columns.messages=NAME of the column that holds the conversations"
        )
