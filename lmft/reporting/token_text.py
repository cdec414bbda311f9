"""An example's tokens in the terminal: coloured by role, and in brackets that a file keeps too."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from lmft.reporting.roles import (
    CONTEXT,
    DROPPED,
    HIDDEN,
    KEPT,
    MARKER,
    MEANINGS,
    PADDING,
    PREDICTED,
    REPLACED,
)
from lmft.reporting.terminal import table
from lmft.reporting.tokens import Token, is_same, space_before, visible, with_turns

_STYLES = {
    CONTEXT: "",
    HIDDEN: "black on yellow",
    REPLACED: "black on magenta",
    KEPT: "black on green",
    PREDICTED: "cyan",
    DROPPED: "dim strike",
    MARKER: "bold blue",
    PADDING: "dim",
}
# Written around the tokens of a role, as colours are lost in files.
_BRACKETS = {HIDDEN: "[]", REPLACED: "{}", KEPT: "()", DROPPED: "<>", PREDICTED: "«»"}


def example_lines(example: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the text of an example and the sequences that the model reads, each under its name."""
    streams = example["streams"]
    rows = [(stream["name"], stream["tokens"]) for stream in streams]
    if not is_same(example["text"], streams):
        rows.insert(0, ("text", example["text"]))
    for name, plain in rows:
        tokens = with_turns(plain)
        yield Text(name, style="bold")
        is_part = any("weight" in token for token in tokens)  # only some tokens may be targets
        line = _line(tokens, is_marked=name == "text" or is_part)
        yield Padding(line, (0, 0, 0, 2), expand=False)


def legend(examples: Sequence[Mapping[str, Any]]) -> Text:
    """Return the roles that occur in the examples, as they are drawn."""
    used = {token["role"] for example in examples for token in example["text"]}
    used |= {
        token["role"]
        for example in examples
        for stream in example["streams"]
        for token in stream["tokens"]
    }
    text = Text()
    for role, meaning in MEANINGS.items():
        if role in used - {CONTEXT}:
            before, after = _brackets(role)
            text.append(f"{before}{role}{after}", style=_STYLES[role])
            text.append(f" {meaning}   ")
    return text


def token_table(tokens: Sequence[Token], width: int) -> RenderableType:
    """Return the tokens of a sequence, a line each: position, id, role, and what is predicted there."""
    heads = ("", "id", "token", "role", "predicts", "id")
    rows = []
    for place, token in enumerate(tokens):
        target = token.get("target")
        predicts = ("", "") if target is None else (visible(target["text"]), str(target["id"]))
        rows.append((str(place), str(token["id"]), visible(token["text"]), token["role"], *predicts))
    return table(heads, rows, width)


def _line(tokens: Sequence[Token], is_marked: bool) -> Text:
    """Return tokens as one text. is_marked: whether brackets tell the roles too."""
    line = Text()
    for _, run in groupby(tokens, lambda token: (token["role"], token.get("turns"))):
        members = list(run)
        role = members[0]["role"]
        if role == PADDING:
            line.append(f" {visible(members[0]['text'])} x {len(members)}", style=_STYLES[role])
            continue
        if "turn" in members[0]:
            line.append(f"\n{members[0]['turn']}: ", style="bold")
        before, after = _brackets(role) if is_marked else ("", "")
        inner = Text("", style=_STYLES[role])
        for token in members:
            _append(inner, token)
        plain = inner.plain
        num_spaces = len(plain) - len(plain.lstrip(" "))
        line.append(" " * num_spaces + before)
        line.append_text(inner[num_spaces:])
        line.append(after)
    return line


def _append(line: Text, token: Token) -> None:
    if "seam" in token:
        line.append(" | ", style="bold red")
    text = token["text"]
    line.append(space_before(text))
    style = _STYLES[token["role"]]
    line.append(visible(text), style=style)
    if token["role"] == REPLACED and "shown" in token:
        line.append(f"={visible(token['shown']['text'])}", style=style)
    if "order" in token:
        line.append(f"#{token['order']}", style="dim")
    line.append("\n" * text.count("\n"))


def _brackets(role: str) -> tuple[str, str]:
    brackets = _BRACKETS.get(role, "")
    return brackets[:1], brackets[1:]
