"""Chat templates of installed packages × shapes of conversations: what is learnt, beside a slow reference.

    PYTHONPATH=. python -m tests.helpers.chat_templates

writes docs/templates.md. The templates are read from the packages `trl` and `axolotl` where they are installed (their
code is not imported), and are not copied: they belong to the models.
"""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from transformers.utils.chat_template_utils import render_jinja_template

from lmft.data.formats.chat.conversation import Chat, Conversation
from lmft.data.formats.chat.template import SHIPPED, ChatTemplate
from lmft.errors import UserError
from tests.helpers.chats import tokenizer_with
from tests.helpers.runs import CHECKOUT

PAGE = CHECKOUT / "docs" / "templates.md"
PACKAGES = ("trl", "axolotl")
MARK = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
# Texts of templates that look like tokens, but are tags that models write as text, or parts of HTML or code.
SPECIAL = re.compile(r"<\|[\w ]+\|?>|<｜[\w▁ ]+｜>|<\w+\|>|<(?:start|end)_of_\w+>|\[/?[A-Z_]+\]|</s>|<s>")
OPEN, CLOSE = "\ue010", "\ue011"

TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {
        "type": "object", "required": ["a"], "properties": {"a": {"type": "integer", "description": "a number"}}}}}
]  # fmt: skip
CALL = {"id": "call12345", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def _asks(text: str) -> dict:
    return {"role": "user", "content": text}


def _says(text: str, **more) -> dict:
    return {"role": "assistant", "content": text, **more}


_RESULT = {"role": "tool", "name": "add", "tool_call_id": "call12345", "content": "three"}
_CALLS = _says("", tool_calls=[CALL])
_THINKS = "<think>\nhm\n</think>\n\n"
_TURNS = [_asks("one"), _says("uno"), _asks("two"), _says("dos")]
_TOOL_TURNS = [_asks("one"), _CALLS, _RESULT, _says("uno"), _asks("two"), _says("dos")]
SHAPES: dict[str, Chat] = {
    "one turn": Chat(_TURNS[:2]),
    "many turns": Chat([*_TURNS, _asks("three"), _says("tres")]),
    "system": Chat([{"role": "system", "content": "be brief"}, *_TURNS]),
    "system in the middle": Chat([*_TURNS[:2], {"role": "system", "content": "be brief"}, *_TURNS[2:]]),
    "developer": Chat([{"role": "developer", "content": "be brief"}, *_TURNS]),
    "same text twice": Chat([_asks("one"), _says("one"), _asks("one"), _says("one")]),
    "assistant first": Chat([_says("hello"), *_TURNS]),
    "two answers in a row": Chat([*_TURNS[:2], _says("eins"), *_TURNS[2:]]),
    "question last": Chat([*_TURNS, _asks("three")]),
    "reasoning": Chat([_asks("one"), _says("uno", reasoning_content="hm"),
                       _asks("two"), _says("dos", reasoning_content="hmm")]),
    "reasoning in the text": Chat([_asks("one"), _says(_THINKS + "uno"), _asks("two"), _says(_THINKS + "dos")]),
    "tool call and result": Chat(_TOOL_TURNS, TOOLS),
    "tool call with text": Chat([_asks("one"), _says("wait", tool_calls=[CALL]), _RESULT, _says("uno")], TOOLS),
    "tool call with reasoning": Chat([_asks("one"), _says("", tool_calls=[CALL], reasoning_content="hm"), _RESULT,
                                      _says("uno", reasoning_content="hmm"), *_TURNS[2:]], TOOLS),
    "tool call last": Chat([*_TURNS[:2], _asks("two"), _CALLS], TOOLS),
    "prompt and completion": Chat(_TURNS, None, [False, False, False, True]),
}  # fmt: skip


@dataclass(frozen=True)
class Named:
    """A template and where it is from."""

    package: str
    name: str
    source: str

    @property
    def is_marked(self) -> bool:
        return MARK.search(self.source) is not None


def version_of(package: str) -> str | None:
    """An installed package with its version; None if it is missing."""
    try:
        return f"{package} {distribution(package).version}"
    except PackageNotFoundError:
        return None


def templates() -> list[Named]:
    """The templates of lmft and of the packages that are installed."""
    folder = CHECKOUT / "lmft" / "data" / "formats" / "chat" / "templates"
    found = [Named("lmft", name, (folder / f"{name}.jinja").read_text("utf-8")) for name in SHIPPED]
    for package in filter(version_of, PACKAGES):
        files = distribution(package).files or ()
        paths = sorted(Path(str(file.locate())) for file in files if file.name.endswith(".jinja"))
        inside = [path for path in paths if "chat_templates" in path.parts]
        found += [Named(package, path.stem, path.read_text("utf-8")) for path in inside]
    return found


@cache
def loaded(template: Named) -> ChatTemplate:
    """The template, with a tokenizer that knows the special tokens in it."""
    tokenizer = copy.deepcopy(tokenizer_with())
    tokens = sorted(set(SPECIAL.findall(template.source)))
    tokenizer.add_special_tokens({"extra_special_tokens": tokens}, replace_extra_special_tokens=False)
    return ChatTemplate(template.source, tokenizer, [], None)


def rendered(template: Named, messages: list[dict], tools, prompted: bool = False) -> str:
    """What transformers renders."""
    variables = loaded(template).tokenizer.special_tokens_map
    arguments = {"chat_template": template.source, "add_generation_prompt": prompted, **variables}
    return render_jinja_template([messages], tools, **arguments)[0][0]


def fault(template: Named, chat: Chat) -> str | None:
    """Why a template itself does not render a conversation; None if it does."""
    try:
        rendered(template, chat.messages, chat.tools)
    except Exception as error:  # of any kind: the template is a program
        return " ".join(str(error).split())
    return None


def bounds(template: Named, chat: Chat, i: int) -> tuple[int, int, int] | None:
    """Bounds of answer i, found by marking its texts: (latest beginning, earliest end of text, latest end).

    The slow way: the first and the last text of the message are put between two characters that nothing else has.
    None: the template writes none of its texts.
    """
    text = rendered(template, chat.messages, chat.tools)
    message = copy.deepcopy(chat.messages[i])
    calls = message.get("tool_calls") or []
    for call in calls:
        call["function"]["name"] = f"{OPEN}{call['function']['name']}{CLOSE}"
    for key in ("content", "reasoning_content"):
        if message.get(key) and not message[key].startswith("<think>"):
            message[key] = f"{OPEN}{message[key]}{CLOSE}"
        elif message.get(key):  # templates split it there
            message[key] = message[key].replace("\n\n", f"\n\n{OPEN}") + CLOSE
    marked = rendered(template, [*chat.messages[:i], message, *chat.messages[i + 1 :]], chat.tools)
    if OPEN not in marked or marked.translate({ord(OPEN): None, ord(CLOSE): None}) != text:
        return None
    first = marked.index(OPEN)
    last = marked.rindex(CLOSE) - marked.count(OPEN) - marked.count(CLOSE) + 1
    try:  # what follows must be written without a next message, too: it may be that one's header
        alone = rendered(template, [*chat.messages[:i], message], chat.tools)
    except Exception:  # of any kind: the template is a program
        return first, last, last
    special = SPECIAL.search(text, last)
    own = SPECIAL.search(alone, alone.rindex(CLOSE) + 1)
    return first, last, special.end() if special and own and own.group() == special.group() else last


def generation_prompt(template: Named, chat: Chat, i: int) -> str | None:
    """What the template adds for answer i to begin after; None if that cannot be told so."""
    try:
        plain = rendered(template, chat.messages[:i], chat.tools)
        prompted = rendered(template, chat.messages[:i], chat.tools, prompted=True)
    except Exception:  # of any kind: the template is a program
        return None
    return prompted.removeprefix(plain) if i and prompted.startswith(plain) else None


def wrong(template: Named, chat: Chat, conversation: Conversation) -> Iterator[str]:
    """What of a conversation's answers the slow reference says is wrong."""
    text = rendered(template, chat.messages, chat.tools)
    if conversation.text != text:
        yield "the text is not what transformers renders"
    is_learnt = chat.is_learnt or [True] * len(chat.messages)
    numbers = [i for i, m in enumerate(chat.messages) if m["role"] == "assistant" and is_learnt[i]]
    learnt = {at for start, end in conversation.answers for at in range(start, end)}
    for i, message in enumerate(chat.messages):
        found = bounds(template, chat, i) if message["role"] == "assistant" else None
        if not found:
            continue
        first, last, end = found
        inside = [at for at in range(first, last) if at in learnt]
        if i not in numbers:
            if inside:
                yield f"message {i + 1} is learnt"
            continue
        if template.is_marked and not inside:
            continue  # its author has not marked it
        if len(inside) < last - first and "tool_calls" not in message:
            yield f"a part of message {i + 1} is not learnt"
        prompt = generation_prompt(template, chat, i)
        begin = first
        while begin - 1 in learnt:
            begin -= 1
        if prompt and not template.is_marked and prompt in text[:first]:
            right = text[:first].rindex(prompt) + len(prompt)
            if right >= first - 60 and begin != right:
                between = text[right:first]
                if not any(asked["content"] and asked["content"] in between for asked in chat.messages[:i]):
                    yield f"message {i + 1} begins with {text[begin:first]!r}, not {between!r}"
        stop = last
        while stop in learnt:
            stop += 1
        if SPECIAL.fullmatch(text[last:end].strip()) and stop < end:
            yield f"the end {text[last:end]!r} of message {i + 1} is not learnt"
    for asked in (message for message in chat.messages if message["role"] in ("user", "tool", "system")):
        at = text.find(f"{asked['content']}")
        if text.count(asked["content"]) == 1 and at in learnt:
            yield f"{asked['content']!r} is learnt"


def each_wrong(template: Named, chat: Chat, conversations: list[Conversation]) -> Iterator[str]:
    """What of the examples of `data.turns=each` is wrong: a text is the prompt that the model gets, and the answer."""
    for conversation in conversations:
        if not conversation.answers or conversation.num_unprompted or template.is_marked:
            continue
        start = conversation.answers[0][0]
        prompts = []
        for i in range(1, len(chat.messages)):
            try:
                prompts.append(rendered(template, chat.messages[:i], chat.tools, prompted=True))
            except Exception:  # of any kind: the template is a program
                return
        if chat.messages[0]["role"] != "assistant" and conversation.text[:start] not in prompts:
            yield f"an answer follows {conversation.text[max(0, start - 40) : start]!r}, which is no prompt"


def left_out(template: Named, chat: Chat) -> list[str]:
    """What of a conversation makes no difference to what the template writes."""
    changes = {
        "text": {"content": "other"},
        "calls": {"tool_calls": [{**CALL, "function": {"name": "other", "arguments": {"a": 1}}}]},
        "reasoning": {"reasoning_content": "other"},
    }
    lost = []
    for name, change in changes.items():
        (key,) = change
        if any(message.get(key) for message in chat.messages):
            messages = [{**message, **change} if message.get(key) else message for message in chat.messages]
            if rendered(template, messages, chat.tools) == rendered(template, chat.messages, chat.tools):
                lost.append(name)
    return lost


def outcome(template: Named, shape: str) -> str:
    """What becomes of a conversation.

    "right", or "right, no …" (the template leaves that out); "refused: …" by lmft; "no: …" by the template; "FAULT: …".
    """
    chat = SHAPES[shape]
    own = fault(template, chat)
    try:
        found = loaded(template).render(chat)
        each = loaded(template).render_each(chat)
    except UserError as error:
        return f"no: {own}" if own is not None else f"refused: {error.what}"
    if own is not None:
        return f"FAULT: taken, although the template says {own}"
    faults = [*wrong(template, chat, found), *each_wrong(template, chat, each)]
    if faults:
        return f"FAULT: {faults[0]}"
    return ", no ".join(["right", *left_out(template, chat)])


def page() -> str:
    """docs/templates.md."""
    reasons: dict[str, int] = {}
    rows = []
    for template in templates():
        cells = []
        for shape in SHAPES:
            kind, _, reason = outcome(template, shape).partition(": ")
            number = reasons.setdefault(reason, len(reasons) + 1) if reason else ""
            kind = kind.replace("right", "✓") if number == "" else {"no": "–"}.get(kind, kind)
            cells.append(f"{kind} {number}".strip())
        rows.append(f"| {template.package} | {template.name}{' (marked)' * template.is_marked} | {' | '.join(cells)} |")
    versions = [found for package in PACKAGES if (found := version_of(package))]
    lines = [
        "# Chat templates",
        "",
        f"The chat templates of lmft and of {' and '.join(versions)}, and shapes of conversations.",
        "",
        "- ✓: the assistant's turns are learnt, each from the end of the generation prompt through its end-of-turn",
        "  token. A slow reference, which marks the texts of one message at a time, finds nothing else where it",
        "  can tell (it cannot tell the beginning of marked turns). With `data.turns=each` each answer follows",
        "  the prompt that the model gets. *(marked)*: the template has `{% generation %}` marks, which tell what",
        "  is learnt.",
        "- *no calls*, *no reasoning*, *no text*: the template writes nothing of these. lmft then refuses a row with",
        "  calls or without any text, and counts rows with reasoning in a warning.",
        "- –: the template itself refuses such a conversation, or fails on it, with the reason below.",
        "",
        "`python -m tests.helpers.chat_templates` (with `PYTHONPATH=.`) writes this page.",
        "",
        f"| From | Template | {' | '.join(SHAPES)} |",
        f"|---|---|{'---|' * len(SHAPES)}",
        *rows,
        "",
        "## Reasons",
        "",
    ]
    for reason, number in reasons.items():
        lines.append(f"{number}. {reason}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
