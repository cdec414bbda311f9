"""Rows of messages, or of a prompt and its completion, as conversations of which the answers are known."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lmft.data.chat_template import NO_TEMPLATE_FIX, ChatTemplate, Conversation, Messages
from lmft.data.rows import each_row, kind_of
from lmft.data.sources import Place, Source
from lmft.errors import UserError, did_you_mean

ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHERS_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "ai": "assistant", "model": "assistant"}
_SHAPE = 'messages are [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def conversations(
    source: Source,
    columns: Mapping[str, str],
    template: ChatTemplate | None,
    cleaned: Counter[str],
    advance: Callable[[int], object] | None = None,
) -> Iterator[tuple[Place, Conversation]]:
    """Each row's place and conversation; what the rows may be is said in `_conversation`.

    columns: the user's names of `messages`, `prompt` and `completion`. template: None where the tokenizer has none;
    then rows may only be texts. `cleaned` and `advance` are those of `sources.documents`; rows without a value are
    counted as `none`.

    Raises UserError, naming the row, for what is no conversation, for what the template cannot write, and for what
    cannot be read.
    """
    return each_row(source, lambda row: _conversation(row, columns, template), cleaned, advance)


def _conversation(row: dict, columns: Mapping[str, str], template: ChatTemplate | None) -> Conversation | None:
    """Of `messages`, of a `prompt` and a `completion` that are both text, or of both as messages; None: no value.

    `tools`, if there, is what the template is given under that name.
    """
    messages, prompt, completion = (row.get(columns[name]) for name in ("messages", "prompt", "completion"))
    if messages is not None:
        return _rendered(_checked(messages, columns["messages"]), 0, row, template)
    if prompt is None and completion is None:
        _must_have_a_column(row, columns)
        return None
    for name, value in (("prompt", prompt), ("completion", completion)):
        if value is None:
            raise UserError(
                f"there is no '{columns[name]}'", fix=f"data.columns.{name}=NAME of the column that holds it"
            )
    if isinstance(prompt, list) and isinstance(completion, list):
        before = _checked(prompt, columns["prompt"])
        return _rendered(before + _checked(completion, columns["completion"]), len(before), row, template)
    if not isinstance(prompt, str) or not isinstance(completion, str):
        what = f"'{columns['prompt']}' holds {kind_of(prompt)} and '{columns['completion']}' {kind_of(completion)}"
        raise UserError(what, fix="both are text, or both are lists of messages")
    if not completion.strip():
        raise UserError(f"'{columns['completion']}' is empty", fix="leave the row out, or give the text to be learnt")
    text = prompt + completion
    return Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)


def _rendered(messages: Messages, first: int, row: dict, template: ChatTemplate | None) -> Conversation:
    tools = row.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise UserError(f"'tools' holds {kind_of(tools)}, not a list of objects", fix="one JSON schema a tool")
    if template is None:
        raise UserError("the tokenizer has no chat template", fix=NO_TEMPLATE_FIX)
    return template.render(messages, tools, first)


def _checked(messages: object, column: str) -> Messages:
    """The messages, without the keys that have no value. Raises UserError for what is no message."""
    if not isinstance(messages, list):
        raise UserError(f"'{column}' holds {kind_of(messages)}, not a list of messages", fix=_SHAPE)
    if not messages:
        raise UserError(f"'{column}' is empty", fix="leave the row out, or give its messages")
    return [_checked_message(message, f"message {i} of '{column}'") for i, message in enumerate(messages, 1)]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{name} is {kind_of(message)}, not an object", fix=_SHAPE)
    message = {key: value for key, value in message.items() if value is not None}
    if "role" not in message:
        others = {"from", "value"} & message.keys()
        fix = "rename 'from' to 'role' and 'value' to 'content', human to user and gpt to assistant"
        raise UserError(f"{name} has no 'role' but {', '.join(message) or 'nothing'}", fix=fix if others else _SHAPE)
    role, content = message["role"], message.get("content", "")
    if role not in ROLES:
        near = _OTHERS_ROLES.get(str(role).lower())
        hint = f" (did you mean '{near}'?)" if near else did_you_mean(str(role), ROLES)
        raise UserError(f"{name} has an unknown role {role!r}{hint}", fix=f"one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UserError(f"the content of {name} is {kind_of(content)}, not text", fix=_SHAPE)
    if not content.strip() and not (role == "assistant" and message.get("tool_calls")):
        raise UserError(f"{name} has no content", fix="leave the message out, or say what it says")
    return message


def _must_have_a_column(row: dict, columns: Mapping[str, str]) -> None:
    if not {columns["messages"], columns["prompt"], columns["completion"]} & row.keys():
        name = columns["messages"]
        others = ", ".join(row) or "nothing"
        what = f"there is neither '{name}'{did_you_mean(name, row)} nor '{columns['prompt']}', but {others}"
        raise UserError(what, fix="data.columns.messages=NAME of the column that holds the conversations")
