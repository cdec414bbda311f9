"""Messages in the forms that data sets keep them in, made messages with `role` and `content`."""

import json
from typing import Any

from lmft.data.formats.chat.conversation import Messages
from lmft.data.sources.cleaning import type_name
from lmft.errors import UserError, did_you_mean

ROLES = ("system", "developer", "user", "assistant", "tool")
SHAPE = 'messages are [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
_ASSISTANT_ELSEWHERE = ("gpt", "chatgpt", "assistant", "bard", "bing", "bot", "ai", "model")
# Names of roles in ShareGPT's rows, and what they stand for.
_ROLES_ELSEWHERE = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(_ASSISTANT_ELSEWHERE, "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response"), "tool"),
    "function_call": "assistant",
    "system": "system",
}
_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS_FIX = '"tool_calls": [{"type": "function", "function": {"name": "…", "arguments": {…}}}]'


def is_sharegpt(messages: object) -> bool:
    """Return whether messages have `from` and `value` instead of `role` and `content`."""
    messages = parsed(messages)
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "from" in first and "role" not in first


def parsed(value: object) -> Any:
    """Return the list or object that a text holds as JSON; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def checked_messages(messages: object, column: str) -> Messages:
    """Return messages with a role and content that is text, and without keys that have no value.

    Read are OpenAI's messages, those with `function_call` and with content in parts too, ShareGPT's, and
    both as JSON text.

    Raises: UserError for what is not a message.
    """
    messages = parsed(messages)
    if not isinstance(messages, list):
        raise UserError(f"'{column}' holds {type_name(messages)}, not a list of messages", fix=SHAPE)
    if not messages:
        raise UserError(f"'{column}' is empty", fix="leave the row out, or give its messages")
    return [
        _checked_message(parsed(message), f"message {i} of '{column}'")
        for i, message in enumerate(messages, 1)
    ]


def _checked_message(message: object, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise UserError(f"{name} is {type_name(message)}, not an object", fix=SHAPE)
    message = {str(key): value for key, value in message.items() if value is not None}
    if "from" in message and "role" not in message:
        message = _from_sharegpt(message, name)
    message = _without_function_call(message, name)
    _check_role(message, name)
    role = message["role"]
    if "tool_calls" in message:
        message["tool_calls"] = _checked_calls(message["tool_calls"], name)
        if not message["tool_calls"]:
            del message["tool_calls"]
    if "content" in message:
        message["content"] = _text_of(message["content"], name)
    is_call = role == "assistant" and "tool_calls" in message
    has_content = bool(message.get("content", "").strip())
    if role == "tool":  # which can return nothing
        message.setdefault("content", "")
    elif not has_content and not is_call:
        raise UserError(f"{name} has no content", fix="leave the message out, or give its text")
    return message


def _check_role(message: dict[str, Any], name: str) -> None:
    if "role" not in message:
        raise UserError(f"{name} has no 'role' but {', '.join(message) or 'nothing'}", fix=SHAPE)
    role = message["role"]
    if role not in ROLES:
        known = _ROLES_ELSEWHERE.get(str(role).lower())
        hint = f" (did you mean '{known}'?)" if known else did_you_mean(str(role), ROLES)
        raise UserError(f"{name} has an unknown role {role!r}{hint}", fix=f"one of {', '.join(ROLES)}")
    if message.get("tool_calls") and role != "assistant":
        raise UserError(f"{name} has tool calls, and is not the assistant's", fix="role: assistant")


def _from_sharegpt(message: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a message with `from` and `value` as one with `role` and `content`."""
    sender = str(message["from"]).lower()
    if sender not in _ROLES_ELSEWHERE:
        known = ", ".join(_ROLES_ELSEWHERE)
        hint = did_you_mean(sender, _ROLES_ELSEWHERE)
        raise UserError(f"{name} is from {message['from']!r}{hint}", fix=f"one of {known}")
    if "content" in message:
        fix = "'from' and 'value', or 'role' and 'content'"
        raise UserError(f"{name} has 'from' and 'content'", fix=fix)
    others = {key: value for key, value in message.items() if key not in ("from", "value")}
    role = _ROLES_ELSEWHERE[sender]
    value = message.get("value")
    if sender != "function_call":
        return {"role": role, **others} | ({} if value is None else {"content": value})
    calls = parsed(value)
    if isinstance(calls, dict):
        calls = [calls]
    if not isinstance(calls, list):
        fix = 'the value of a function call is {"name": "…", "arguments": {…}} as JSON text'
        raise UserError(f"{name} is a function call, and its value is not JSON", fix=fix)
    return {"role": role, **others, "tool_calls": [_as_function(call) for call in calls]}


def _as_function(call: object) -> Any:
    """Return a call of the form {"name": …, "arguments": …} in OpenAI's form."""
    if isinstance(call, dict) and "function" not in call:
        return {"type": "function", "function": call}
    return call


def _without_function_call(message: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a message of OpenAI's earlier format in the present one."""
    if message.get("role") == "function":
        message = {**message, "role": "tool"}
    if "function_call" not in message:
        return message
    if "tool_calls" in message:
        what = f"{name} has both 'function_call' and 'tool_calls'"
        raise UserError(what, fix=_CALLS_FIX)
    call = parsed(message["function_call"])
    others = {key: value for key, value in message.items() if key != "function_call"}
    return {**others, "tool_calls": [_as_function(call)]}


def _checked_calls(calls: object, name: str) -> list[dict[str, Any]]:
    """Return tool calls as a list of objects that name their functions. Raises: UserError."""
    calls = parsed(calls)
    if not isinstance(calls, list):
        raise UserError(f"the tool calls of {name} are {type_name(calls)}, not a list", fix=_CALLS_FIX)
    calls = [parsed(call) for call in calls]
    for number, call in enumerate(calls, 1):
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            what = f"tool call {number} of {name} names no function"
            raise UserError(what, fix=_CALLS_FIX)
    return calls


def _text_of(content: object, name: str) -> str:
    """Return content as text; text parts are joined by line breaks, as servers do."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UserError(f"the content of {name} is {type_name(content)}, not text", fix=SHAPE)
    texts = []
    for part in content:
        text = part
        if isinstance(part, dict):
            kind = part.get("type", "text")
            if kind not in _TEXT_PARTS:
                what = f"the content of {name} has a part of type {kind!r}, and only text is learnt"
                raise UserError(what, fix="leave the row out, or give its text")
            text = part.get("text")
            more = [key for key in part if key not in ("type", "text") and part[key] is not None]
            if more:
                what = f"a part of the content of {name} has {', '.join(more)}, which nothing reads"
                raise UserError(what, fix='a part is {"type": "text", "text": "…"}')
        if not isinstance(text, str):
            what = f"the content of {name} is a list, and a part of it is not text"
            raise UserError(what, fix='a part is {"type": "text", "text": "…"}')
        texts.append(text)
    return "\n".join(texts)
