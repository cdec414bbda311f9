"""Say in a few lines what training changed, and where."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from lmft.reporting.terminal import show, table_page, terminal

_SMALLEST_SHARE = 0.01  # of the targets; rarer tokens say little of the whole


def lines_of(details: Mapping[str, Any]) -> list[str]:
    """Return one to four plain lines on what details.json holds; none if nothing was measured before."""
    overall = details["overall"]
    if overall["change"] is None:
        return []
    texts = details["texts"]
    lines = [_whole(overall, texts)]
    if len(texts) > 1:
        lines.append("; ".join(f"{text['name']}: {_change(text)}" for text in texts))
    for text in texts if len(texts) == 1 else []:
        lines += _where(text)
    return lines


def print_changes(details: Mapping[str, Any], measured_on: str, console: Console | None = None) -> None:
    """Print the lines of details.json, if there are any.

    Args:
        details: its content.
        measured_on: on what the losses were measured.
        console: where to print; None: the terminal.
    """
    console = console or terminal()
    if lines := details.get("lines"):
        title = f"what changed on {measured_on}"
        show(*table_page(title, (), [], lines, console.width), console=console)


def _whole(overall: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> str:
    change = f"loss {overall['before']:.4g} → {overall['after']:.4g} ({_change(overall)})"
    counts = [(text["better"], text["documents"]) for text in texts]
    if any(None in count for count in counts):
        return change
    better = sum(count for count, _ in counts)
    documents = sum(count for _, count in counts)
    return f"better on {better:,} of {documents:,} documents: {change}"


def _change(compared: Mapping[str, Any]) -> str:
    """Return a change with its interval; that zero is within the interval is said."""
    change = f"{compared['change']:+.4f} nats per target"
    low = compared["low"]
    high = compared["high"]
    if low is None:
        return change
    interval = f"95% interval {low:+.4f} to {high:+.4f}"
    if low <= 0 <= high:
        return f"{change}, {interval}: no clear change"
    return f"{change}, {interval}"


def _where(text: Mapping[str, Any]) -> list[str]:
    """Return on which tokens the loss changed most, and where it got clearly worse."""
    lines = []
    frequencies = [
        each
        for each in text["by_frequency"] or []
        if each["from"] is not None and each["targets"] >= _SMALLEST_SHARE * text["targets"]
    ]
    if len(frequencies) > 1:
        best = min(frequencies, key=lambda each: each["change"])
        least = max(frequencies, key=lambda each: each["change"])
        verb = "worse" if least["change"] > 0 else "least"
        lines.append(
            f"most on tokens that occur {_times(best)} in the training text ({best['change']:+.4f}), "
            f"{verb} on those that occur {_times(least)} ({least['change']:+.4f})"
        )
    worse = [
        f"{what.format(each['label'])} ({each['change']:+.4f})"
        for way, what in (("by_length", "documents of {} tokens"), ("by_position", "positions {}"))
        for each in text[way] or []
        if each["low"] is not None and each["low"] > 0
    ]
    if worse:
        shown = ", ".join(worse[:3])
        lines.append(f"clearly worse: {shown}{f' and {len(worse) - 3} more' if len(worse) > 3 else ''}")
    return lines


def _times(frequency: Mapping[str, Any]) -> str:
    return "never" if frequency["to"] == 0 else f"{frequency['label']} times"
