"""Join the masks and sentinels in the inputs with the hidden tokens that they replace."""

from typing import Any

from lmft.reporting.roles import HIDDEN, MARKER, REPLACED

Token = dict[str, Any]
"""{"id", "text", "role"}, and what else there is to say of it; see `example`."""


def join(stream: list[Token], text: list[Token]) -> None:
    """Join what the objective put into the inputs with the hidden tokens in whose place it stands.

    A token that is not of the text stands for the first hidden token after the text before it, or else
    for the hidden ones before the text that follows it.
    """
    before = -1  # place in the text of the last token of it, or of the hidden one that was joined last
    for column, token in enumerate(stream):
        if "source" in token:
            before = token["source"]
        elif token["role"] in (MARKER, REPLACED):
            place = _hidden_after(text, before)
            if place is None:
                place = _hidden_before(text, _next_source(stream, column))
            if place is None:
                continue
            token["stands_for"] = place
            if text[place]["text"].startswith(" ") and not token["text"].startswith(" "):
                token["text"] = f" {token['text']}"
            text[place]["shown"] = {"id": token["id"], "text": token["text"]}
            if token["role"] == REPLACED:
                text[place]["role"] = REPLACED
            before = place


def _hidden_after(text: list[Token], place: int) -> int | None:
    following = text[place + 1 : place + 2]
    if following and following[0]["role"] == HIDDEN and "shown" not in following[0]:
        return place + 1
    return None


def _hidden_before(text: list[Token], place: int | None) -> int | None:
    """Return the first of the hidden tokens that end before a place; None if none do."""
    first = None
    while place and text[place - 1]["role"] == HIDDEN and "shown" not in text[place - 1]:
        place -= 1
        first = place
    return first


def _next_source(stream: list[Token], column: int) -> int | None:
    return next((token["source"] for token in stream[column:] if "source" in token), None)
