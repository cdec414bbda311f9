"""Layouts: the columns that data sets of conversations have, and the chat that a row of each is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lmft.data.config import SHAREGPT_COLUMN
from lmft.data.formats.chat.conversation import Chat, Conversation, Messages
from lmft.data.formats.chat.messages import checked_messages, is_sharegpt, parsed
from lmft.data.formats.chat.tools import checked_tools
from lmft.data.sources.cleaning import type_name
from lmft.errors import UserError, did_you_mean

_SYSTEM_ROLES = ("system", "developer")
_QUESTIONS = ("question", "query", "instruction", "problem", "prompt", "input")  # usual names of columns
_ANSWERS = ("answer", "response", "output", "completion", "solution", "target", "chosen")
_CONTEXTS = ("context", "input")
_PROMPT = ("prompt", "completion")


class Row:
    """A row, its values by the names that `data.columns` gives their columns."""

    def __init__(self, values: Mapping[str, Any], columns: Mapping[str, str], between: str):
        """Create a row.

        Args:
            values: column -> value.
            columns: the user's names of the columns.
            between: what joins the instruction and its input.
        """
        self.values = values
        self.between = between
        self._columns = columns
        self.read: set[str] = set()  # the columns that were read
        self.num_weightless = 0  # answers that are not to be learnt

    def name(self, option: str) -> str:
        """Return the name of a column, as the user gives it."""
        name = self._columns.get(option, option)
        if option == "messages" and name not in self.values and SHAREGPT_COLUMN in self.values:
            return SHAREGPT_COLUMN
        return name

    def has(self, option: str) -> bool:
        """Return whether the row has a value in a column."""
        return self.values.get(self.name(option)) is not None

    def knows(self, option: str) -> bool:
        """Return whether the row has a column, with a value or without."""
        return self.name(option) in self.values

    def take(self, option: str) -> Any:
        """Return the value in a column, which counts as read; None if there is none."""
        name = self.name(option)
        self.read |= {name, name.partition(".")[0]}
        return self.values.get(name)

    def text(self, option: str, required: bool = True) -> str:
        """Return the text in a column; "" if there is none. Raises: UserError if it is not text."""
        value = self.take(option)
        if value is not None and not isinstance(value, str):
            what = f"'{self.name(option)}' holds {type_name(value)}, not text"
            raise UserError(what, fix=f"data.columns.{option}=NAME of the column that holds it")
        if required and not (value or "").strip():
            what = f"'{self.name(option)}' is empty"
            raise UserError(what, fix="leave the row out, or give the text to be learnt")
        return value or ""

    @property
    def unread(self) -> list[str]:
        """The columns that have a value and were not read."""
        return [
            name for name, value in self.values.items() if name not in self.read and value is not None
        ]


@dataclass(frozen=True)
class Layout:
    """Columns of rows, and what a row of them is."""

    label: str  # for the log; {messages} is the name of that column
    columns: tuple[str, ...]  # options of data.columns
    fits: Callable[[Row], bool]
    read: Callable[[Row], Chat | Conversation]


def _of_messages(row: Row) -> Chat:
    messages = checked_messages(row.take("messages"), row.name("messages"))
    return _chat(row, messages, [True] * len(messages))


def _of_prompt(row: Row) -> Chat | Conversation:
    for name in ("prompt", "completion"):
        if not row.has(name):
            raise _no_column(row, name)
    prompt = parsed(row.take("prompt"))
    completion = parsed(row.take("completion"))
    if isinstance(prompt, list) and isinstance(completion, list):
        before = checked_messages(prompt, row.name("prompt"))
        after = checked_messages(completion, row.name("completion"))
        return _chat(row, before + after, [False] * len(before) + [True] * len(after))
    prompt = row.take("prompt")
    completion = row.take("completion")
    if not isinstance(prompt, str) or not isinstance(completion, str):
        what = f"'{row.name('prompt')}' holds {type_name(prompt)}"
        what += f" and '{row.name('completion')}' {type_name(completion)}"
        raise UserError(what, fix="both are text, or both are lists of messages")
    text = prompt + row.text("completion")
    return Conversation(text, [(len(prompt), len(text))], text, is_rendered=False)


def _of_instruction(row: Row) -> Chat:
    parts = [row.text("instruction", required=False), row.text("input", required=False)]
    question = row.between.join(part for part in parts if part.strip())
    if not question:
        raise UserError(f"'{row.name('instruction')}' is empty", fix="leave the row out")
    messages = [*_history(row), {"role": "user", "content": question}]
    messages.append({"role": "assistant", "content": row.text("output")})
    return _chat(row, messages, [True] * len(messages))


def _history(row: Row) -> Messages:
    """Return the messages of earlier turns: [[question, answer], …]."""
    turns = parsed(row.take("history")) or []
    if not isinstance(turns, list) or not all(_is_turn(turn) for turn in turns):
        fix = '[["question", "answer"], …], the earlier turns'
        raise UserError(f"'{row.name('history')}' holds no list of pairs of texts", fix=fix)
    roles = ("user", "assistant")
    return [
        {"role": role, "content": text} for turn in turns for role, text in zip(roles, turn, strict=True)
    ]


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, list | tuple) or len(turn) != 2:
        return False
    return all(isinstance(text, str) and text.strip() for text in turn)


LAYOUTS = {
    "messages": Layout(
        "chats ({messages}: role, content)",
        ("messages",),
        lambda row: row.has("messages") and not is_sharegpt(row.values[row.name("messages")]),
        _of_messages,
    ),
    "sharegpt": Layout(
        "ShareGPT conversations ({messages}: from, value)",
        ("messages",),
        lambda row: row.has("messages") and is_sharegpt(row.values[row.name("messages")]),
        _of_messages,
    ),
    "prompt_completion": Layout(
        "prompts and completions ({prompt}, {completion})",
        _PROMPT,
        lambda row: row.has("prompt") or row.has("completion"),
        _of_prompt,
    ),
    "alpaca": Layout(
        "Alpaca's instructions ({instruction}, {input}, {output})",
        ("instruction", "output"),
        lambda row: (
            row.knows("instruction")
            and row.knows("output")
            and (row.has("instruction") or row.has("output"))
        ),
        _of_instruction,
    ),
}


def layout_of(row: Row, format: str) -> Layout | None:
    """Return a row's layout; None if it has no value.

    format: `data.format`: the layout that it has to have, or `chat` for the first one that fits.

    Raises: UserError if there is none, or not the one that is wanted.
    """
    candidates = LAYOUTS if format == "chat" else {format: LAYOUTS[format]}
    found = next((layout for layout in candidates.values() if layout.fits(row)), None)
    is_complete = found is not None and (row.has("completion") or found.columns != _PROMPT)
    if not is_complete and {"chosen", "rejected"} <= row.values.keys():
        raise _preferences(row)
    if found is not None:
        return found
    if format != "chat" and (other := next((n for n in LAYOUTS if LAYOUTS[n].fits(row)), None)):
        what = f"data.format={format}, and this row has {_label(LAYOUTS[other], row)}"
        raise UserError(what, fix=f"data.format={other}, or data.format=chat to recognise each row")
    if any(all(map(row.knows, layout.columns)) for layout in candidates.values()):
        return None
    raise _unknown(row, candidates)


def _label(layout: Layout, row: Row) -> str:
    names = ("messages", "prompt", "completion", "instruction", "input", "output")
    return layout.label.format(**{name: row.name(name) for name in names})


def described(layout: Layout, row: Row) -> str:
    """Return what to tell of rows that were read in a layout."""
    return f"rows are {_label(layout, row)}"


def _preferences(row: Row) -> UserError:
    what = "rows with 'chosen' and 'rejected' are preferences, and lmft learns one answer"
    if isinstance(parsed(row.values["chosen"]), list) and not row.has("prompt"):
        return UserError(what, fix="data.columns.messages=chosen learns the chosen one")
    return UserError(what, fix="data.columns.completion=chosen learns the chosen one")


def _no_column(row: Row, option: str) -> UserError:
    fix = f"data.columns.{option}=NAME of the column that holds it"
    guess = next((name for name in _ANSWERS + _QUESTIONS if name in row.unread), None)
    if guess and option == "completion":
        fix += f", such as {guess}"
    return UserError(f"there is no '{row.name(option)}'", fix=fix)


def _unknown(row: Row, candidates: Mapping[str, Layout]) -> UserError:
    """Return the error for a row of no known layout, with the options that read its columns."""
    others = ", ".join(row.values) or "nothing"
    name = row.name("messages")
    what = f"there is neither '{name}'{did_you_mean(name, row.values)} nor '{row.name('prompt')}'"
    if len(candidates) == 1:
        column = next(iter(candidates.values())).columns[0]
        what = f"there is no '{row.name(column)}'{did_you_mean(row.name(column), row.values)}"
    what += f", but {others}"
    question = next((name for name in _QUESTIONS if name in row.values), None)
    answer = next((name for name in _ANSWERS if name in row.values and name != question), None)
    if question is None or answer is None:
        fix = "data.columns.messages=NAME of the column that holds the conversations"
        if isinstance(row.values.get("text"), str):
            fix += "; or, for one text with a marker before each answer, data.format=marked_text"
        return UserError(what, fix=fix)
    fix = f"data.columns.instruction={question} data.columns.output={answer}"
    context = next((name for name in _CONTEXTS if name in row.values and name != question), None)
    if context:
        fix += f" data.columns.input={context}"
    return UserError(what, fix=fix)


def _chat(row: Row, messages: Messages, may_be_learnt: list[bool]) -> Chat:
    """Return the chat of a row's messages, with its system message, tools and template variables."""
    are_weighted = [_takes_weight(message, f"message {i}") for i, message in enumerate(messages, 1)]
    row.num_weightless = are_weighted.count(False)
    is_learnt = [may and weighted for may, weighted in zip(may_be_learnt, are_weighted, strict=True)]
    system = row.text("system", required=False)
    first = messages[0]
    if system.strip():
        if first["role"] not in _SYSTEM_ROLES:
            messages = [{"role": "system", "content": system}, *messages]
            is_learnt = [False, *is_learnt]
        elif first["content"] != system:
            what = f"'{row.name('system')}' and the first message are two system messages"
            raise UserError(what, fix="leave one of them out")
    return Chat(messages, _tools(row), None if all(is_learnt) else is_learnt, _variables(row))


def _takes_weight(message: dict[str, Any], name: str) -> bool:
    """Take `weight` and `train` out of a message; return whether they leave it to be learnt.

    Nobody but the assistant is learnt: where they ask for that, they stay, to be counted as unread.
    """
    is_learnt = True
    for key in ("weight", "train"):
        if key not in message:
            continue
        value = message[key]
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            what = f"the {key} of {name} is {value!r}"
            raise UserError(what, fix="1 (the answer is learnt) or 0 (it is context)")
        if message["role"] == "assistant":
            is_learnt = is_learnt and bool(value)
        if message["role"] == "assistant" or not value:
            del message[key]
    return is_learnt


def _tools(row: Row) -> list[dict[str, Any]] | None:
    tools = checked_tools(row.take("tools"), row.name("tools"))
    functions = checked_tools(row.take("functions"), row.name("functions"))
    if tools and functions:
        raise UserError("the row has both 'functions' and 'tools'", fix="leave one of them out")
    if functions:
        return [{"type": "function", "function": function} for function in functions]
    return tools


def _variables(row: Row) -> dict[str, Any]:
    value = parsed(row.take("chat_template_kwargs"))
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        what = f"'chat_template_kwargs' holds {type_name(value)}, not an object"
        raise UserError(what, fix='{"enable_thinking": false}, the variables of the chat template')
    own = {"messages", "tools", "add_generation_prompt"} & value.keys()
    if own:
        what = f"'chat_template_kwargs' sets {', '.join(sorted(own))}, which the row itself gives"
        raise UserError(what, fix="leave it out")
    return {str(key): inner for key, inner in value.items() if inner is not None}
