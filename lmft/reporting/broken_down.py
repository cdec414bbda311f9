"""Print the loss of an evaluation by token frequency, document length and position."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from lmft.reporting.tables import ABSENT
from lmft.reporting.terminal import show, table_page, terminal

# Key of details.json -> heading.
_WAYS = {
    "by_frequency": "by how often the token occurs in the training text",
    "by_length": "by the tokens of the document",
    "by_position": "by the tokens before it in its block or document",
}
_LOSSES = ("nats per target", "targets")
_CHANGES = ("before", "after", "change", "95% interval", "targets")


def print_broken_down(details: Mapping[str, Any], console: Console | None = None) -> None:
    """Print a table for each text and way; with changes, if a measurement before training is known."""
    console = console or terminal()
    for text in details["texts"]:
        for way, heading in _WAYS.items():
            bins = text[way]
            if not bins:
                continue
            title = f"loss of {text['name']} {heading}" if text["name"] else f"loss {heading}"
            is_compared = any(each["change"] is not None for each in bins)
            heads = ("", *(_CHANGES if is_compared else _LOSSES))
            rows = [(each["label"], *_cells(each, is_compared)) for each in bins]
            show(*table_page(title, heads, rows, [], console.width), console=console)


def _cells(each: Mapping[str, Any], is_compared: bool) -> Sequence[str]:
    if is_compared:
        return compared_cells(each)
    return cell(each["after"], "{:.4f}"), cell(each["targets"], "{:,}")


def compared_cells(each: Mapping[str, Any]) -> tuple[str, ...]:
    """Return losses before and after, their change, its interval, and the number of targets."""
    interval = ABSENT
    if each["low"] is not None:
        interval = f"{each['low']:+.4f} to {each['high']:+.4f}"
    return (
        cell(each["before"], "{:.4f}"),
        cell(each["after"], "{:.4f}"),
        cell(each["change"], "{:+.4f}"),
        interval,
        cell(each["targets"], "{:,}"),
    )


def cell(value: float | None, form: str) -> str:
    """Return a number as text; a dash if there is none."""
    return ABSENT if value is None else form.format(value)
