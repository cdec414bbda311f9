"""Tools of a chat: their schemas, and the arguments of calls in the form that a template wants."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lmft.data.formats.chat.conversation import Chat, Messages
from lmft.data.formats.chat.messages import parsed
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.sources.cleaning import type_name
from lmft.errors import UserError

_PROBE = {"lmft_argument": "lmft value"}
_PROBE_TEXT = json.dumps(_PROBE)


def checked_tools(tools: object, column: str) -> list[dict[str, Any]] | None:
    """Return tools as a list of JSON schemas; None if there are none.

    They may be JSON text: all, each, or the parameters of each.

    Raises: UserError.
    """
    if tools is None or (isinstance(tools, str) and not tools.strip()):
        return None
    read = parsed(tools)
    if isinstance(read, list):
        read = [parsed(tool) for tool in read]
    if not isinstance(read, list) or not all(isinstance(tool, dict) for tool in read):
        what = f"'{column}' holds {type_name(tools)}, not a list of objects"
        raise UserError(what, fix="one JSON schema a tool, or all as JSON text")
    return [_with_parameters(tool) for tool in read] or None


def _with_parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool with its parameters as an object, if they are JSON text."""
    if isinstance(tool.get("function"), dict):
        return {**tool, "function": _with_parameters(tool["function"])}
    if isinstance(tool.get("parameters"), str):
        return {**tool, "parameters": parsed(tool["parameters"])}
    return tool


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a tool, or of a call, that has the function's name."""
    function = call.get("function")
    return function if isinstance(function, Mapping) else call


class Arguments:
    """Gives the arguments of tool calls the form that a template wants: an object, or JSON text.

    The form is found by rendering the first chat with calls in both. Arguments stay as they are where
    the template takes both.
    """

    def __init__(self, template: ChatTemplate):
        self._template = template
        self._takes: dict[type, bool] | None = None

    def fitted(self, chat: Chat) -> Chat:
        """Return the chat with all arguments in the template's form. Raises: UserError."""
        if not any("tool_calls" in message for message in chat.messages):
            return chat
        takes = self._takes or self._tried(chat)
        if any(takes.values()):
            self._takes = takes

        def fit(arguments: Any) -> Any:
            if isinstance(arguments, str) and not takes[str] and takes[dict]:
                return _as_object(arguments)
            if not isinstance(arguments, str) and not takes[dict] and takes[str]:
                return json.dumps(arguments, ensure_ascii=False)
            return arguments

        return _with_arguments(chat, fit)

    def _tried(self, chat: Chat) -> dict[type, bool]:
        """Return whether the template writes arguments of each form once, and legibly."""
        as_object = self._text(_with_arguments(chat, lambda _: _PROBE))
        as_text = self._text(_with_arguments(chat, lambda _: _PROBE_TEXT))
        ((key, value),) = _PROBE.items()
        has_both = key in as_object and value in as_object
        # Python's way of writing an object is not JSON: the template prints it as a text.
        takes_object = has_both and repr(_PROBE) not in as_object
        # With its quotes: it is not encoded twice. Gemma 4 puts further braces around a text.
        takes_text = _PROBE_TEXT in as_text and (not takes_object or as_text == as_object)
        return {dict: takes_object, str: takes_text}

    def _text(self, chat: Chat) -> str:
        """Return the rendered chat; the empty text if the template refuses it."""
        try:
            return self._template.text(chat)
        except UserError:
            return ""


def _with_arguments(chat: Chat, change: Callable[[Any], Any]) -> Chat:
    """Return the chat with the arguments of all calls changed."""
    messages: Messages = []
    for number, message in enumerate(chat.messages, 1):
        if "tool_calls" in message:
            try:
                calls = [_changed(call, change) for call in message["tool_calls"]]
            except UserError as error:
                error.what += f" (message {number})"
                raise
            message = {**message, "tool_calls": calls}
        messages.append(message)
    return replace(chat, messages=messages)


def _changed(call: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    if isinstance(call.get("function"), dict):
        return {**call, "function": _changed(call["function"], change)}
    if "arguments" not in call:
        return call
    return {**call, "arguments": change(call["arguments"])}


def _as_object(arguments: str) -> dict[str, Any]:
    """Return arguments of JSON text as an object. Raises: UserError."""
    if not arguments.strip():
        return {}
    try:
        read = json.loads(arguments)
    except (ValueError, RecursionError) as error:
        raise _no_object(f"not JSON: {error}") from error
    if not isinstance(read, dict):
        raise _no_object(type_name(read))
    return read


def _no_object(held: str) -> UserError:
    what = f"the chat template wants the arguments of a tool call as an object, and they are {held}"
    return UserError(what, fix='"arguments": {"name": "value"}, or the same as JSON text')
