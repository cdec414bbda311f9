"""Find parts of chats that a template does not read, by rendering without them or with others."""

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lmft.data.formats.chat.conversation import Chat
from lmft.data.formats.chat.template import ChatTemplate
from lmft.data.formats.chat.tools import function_of
from lmft.errors import UserError

_OTHER_TEMPLATE = "data.chat_template=FILE with a template"
_CHECKED_APART = ("role", "content", "tool_calls")  # keys of a message
_STAND_IN = "qzlmftstandinqz"  # letters, so that no template escapes it


class Unread:
    """Tells what of a chat is not in the text that a template makes of it.

    Whether a template reads a key of a message is tried once for each context: the message's role and
    keys, whether it is the first, the last, or follows the last user message, the roles around it, and
    whether there are tools. The content of messages and tool calls is looked up in each text.
    """

    def __init__(self, template: ChatTemplate):
        self._template = template
        self._known: dict[Hashable, bool] = {}  # context -> whether the template reads it

    def of(self, chat: Chat, text: str, learnt: Sequence[str] = ()) -> Iterator[tuple[int, str]]:
        """Yield what is not read: the number of its message, and its name.

        Args:
            chat: the chat.
            text: what the template makes of it.
            learnt: further texts that are made of it. What is in one of them is not lost.

        Raises: UserError for what the model would learn wrongly without: tools, tool calls and the
            content of messages.
        """
        found = _Rendered(chat, text, learnt)
        self._check_tools(found)
        for i, message in enumerate(chat.messages):
            role = message["role"]
            for key, value in message.items():
                if key in _CHECKED_APART or not value:
                    continue
                if not self._is_read(found, i, key):
                    yield i, f"'{key}' of {role} messages"
            for call in message.get("tool_calls", ()):
                self._check_call(found, i, call)
            if message.get("content", "").strip() and not self._has_content(found, i):
                yield i, f"a part of the content of {role} messages"

    def of_each(self, chat: Chat, texts: Sequence[str]) -> list[str]:
        """Return the names of what is not read where each answer is the last message.

        A message counts as it is written for the answer that comes next.

        Args:
            chat: the chat.
            texts: the text of each answer, after the messages before it as the model gets them.

        Raises: UserError, as `of`.
        """
        ends = [i + 1 for i in chat.answers] or [len(chat.messages)]
        names = []
        first = 0
        for end in ends:
            part = replace(chat, messages=chat.messages[:end], is_learnt=None)
            try:
                text = self._template.text(part)
            except UserError:  # some templates want a question, which may come later
                part = chat
                text = self._template.text(chat)
            unread = self.of(part, text, texts)
            names += [name for number, name in unread if number >= first]
            first = end
        return list(dict.fromkeys(names))

    def _has_content(self, found: "_Rendered", i: int) -> bool:
        """Return whether the whole content of message i is in the text.

        Raises: UserError if none of it is.
        """
        message = found.chat.messages[i]
        if self._is_read(found, i, "content"):
            return found.holds(message["content"])
        if "tool_calls" in message:  # many templates write either
            return False
        if found.learnt and found.holds(message["content"]):
            return True
        what = f"the chat template leaves out the content of message {i + 1} ({message['role']})"
        fix = f"{_OTHER_TEMPLATE} that writes it"
        if message["role"] == "developer":
            fix = f"'system' as its role, or {fix}"
        raise UserError(what, fix=fix)

    def _check_call(self, found: "_Rendered", i: int, call: dict[str, Any]) -> None:
        """Raise UserError if a tool call of message i is not in the text with all of its arguments."""
        function = function_of(call)
        words = [function["name"], *_texts_in(function.get("arguments"))]
        is_read = self._is_read(found, i, "tool_calls")
        missing = [word for word in words if not is_read or not found.holds(word)]
        for word in missing:
            calls = _swapped(found.chat.messages[i]["tool_calls"], word)
            if self._writes_stand_in(_with(found.chat, i, "tool_calls", calls)):
                continue  # it is written in another way, such as in capitals
            part = f"the call of {function['name']}"
            if word != function["name"]:
                part = f"an argument of {function['name']}, {word!r},"
            what = f"the chat template leaves out {part} in message {i + 1}"
            raise UserError(what, fix=f"{_OTHER_TEMPLATE} that writes tool calls")

    def _check_tools(self, found: "_Rendered") -> None:
        """Raise UserError if a tool is not in the text."""
        tools = found.chat.tools or []
        context = ("tools", *found.roles[:2], found.roles[-1], bool(tools))
        if tools and context not in self._known:
            self._known[context] = self._differs(replace(found.chat, tools=None), found.text)
        for number, tool in enumerate(tools):
            name = str(function_of(tool).get("name", ""))
            if (self._known[context] or found.learnt) and found.holds(name):
                continue
            others = [*tools[:number], *tools[number + 1 :]]
            if not self._differs(replace(found.chat, tools=others or None), found.text):
                what = f"the chat template leaves out the tool {name or number + 1}"
                raise UserError(what, fix=f"{_OTHER_TEMPLATE} that writes tools")

    def _is_read(self, found: "_Rendered", i: int, key: str) -> bool:
        """Return whether the template reads a key of message i, as far as its context tells."""
        context = (key, *found.context(i))
        if context not in self._known:
            self._known[context] = self._tried(found, i, key)
        return self._known[context]

    def _tried(self, found: "_Rendered", i: int, key: str) -> bool:
        message = found.chat.messages[i]
        if isinstance(message[key], str):
            if self._writes_stand_in(_with(found.chat, i, key, _STAND_IN)):
                return True
            if key == "content":
                return False
        others = {name: value for name, value in message.items() if name != key}
        return self._differs(_with_message(found.chat, i, others), found.text)

    def _writes_stand_in(self, chat: Chat) -> bool:
        """Return whether the template writes the stand-in, or refuses the chat because of it."""
        try:
            return _STAND_IN in self._template.text(chat).lower()
        except UserError:
            return True

    def _differs(self, chat: Chat, text: str) -> bool:
        """Return whether the template makes another text of a chat, or refuses it."""
        try:
            return self._template.text(chat) != text
        except UserError:
            return True


class _Rendered:
    """A chat and its text, with what can decide whether a template reads a key of a message."""

    def __init__(self, chat: Chat, text: str, learnt: Sequence[str]):
        self.chat = chat
        self.text = text
        self.learnt = learnt  # further texts that are made of the chat
        self.roles = [message["role"] for message in chat.messages]
        users = [i for i, role in enumerate(self.roles) if role == "user"]
        self._last_user = users[-1] if users else -1
        switches = {key: value for key, value in chat.variables.items() if isinstance(value, bool)}
        self._shared = (bool(chat.tools), tuple(switches.items()))

    def holds(self, part: str) -> bool:
        """Return whether a part is in the text, or in one of the further texts."""
        return any(_holds(text, part) for text in (self.text, *self.learnt))

    def context(self, i: int) -> tuple[Hashable, ...]:
        """Return the context of message i."""
        before = self.roles[i - 1] if i else None
        after = self.roles[i + 1] if i + 1 < len(self.roles) else None
        keys = tuple(self.chat.messages[i])
        return (before, self.roles[i], after, i > self._last_user, keys, *self._shared)


def _with(chat: Chat, i: int, key: str, value: Any) -> Chat:
    return _with_message(chat, i, {**chat.messages[i], key: value})


def _with_message(chat: Chat, i: int, message: dict[str, Any]) -> Chat:
    return replace(chat, messages=[*chat.messages[:i], message, *chat.messages[i + 1 :]])


def _holds(text: str, part: str) -> bool:
    """Return whether a part is in a text, as it is or inside of JSON."""
    part = part.strip()
    if part in text:
        return True
    for ensure_ascii in (False, True):
        if json.dumps(part, ensure_ascii=ensure_ascii)[1:-1] in text:
            return True
    return False


def _texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)


def _swapped(value: Any, word: str) -> Any:
    """Return a value with the stand-in for each text in it that is `word`."""
    if isinstance(value, dict):
        return {key: _swapped(inner, word) for key, inner in value.items()}
    if isinstance(value, list):
        return [_swapped(inner, word) for inner in value]
    return _STAND_IN if value == word else value
