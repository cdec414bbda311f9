"""Print what a training reads and predicts: examples, shapes, and statistics of the text."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from lmft.reporting.tables import ABSENT, print_ledger
from lmft.reporting.terminal import show, table_page, terminal
from lmft.reporting.token_text import example_lines, legend, token_table
from lmft.reporting.tokens import places_line, visible

_EXCERPT = 40  # characters of a repeated document

Inspected = Mapping[str, Any]
"""What `lmft.assembly.inspecting` returns."""


def print_examples(found: Inspected, num_shown: int, console: Console | None = None) -> None:
    """Print the first examples of the first epoch."""
    console = console or terminal()
    first = [batch for batch in found["batches"] if batch["epoch"] == 0]
    examples = [example for batch in first for example in batch["examples"]][:num_shown]
    show(Text(objective_line(found), style="bold"), legend(examples), "", console=console)
    for example in examples:
        where = f"{example['split']} example {example['number']}, epoch {example['epoch']}"
        title = Text(f"{where}: {counts_line(example)}")
        places = [Text(line, style="dim") for line in [places_line(example)] if line]
        show(title, *places, *example_lines(example), "", console=console)


def print_texts(found: Inspected, console: Console | None = None) -> None:
    """Print each example of the first epoch with the shapes of its batch and a table of its tokens."""
    console = console or terminal()
    first = [batch for batch in found["batches"] if batch["epoch"] == 0]
    examples = [example for batch in first for example in batch["examples"]]
    show(Text(objective_line(found), style="bold"), legend(examples), "", console=console)
    for batch in first:
        for name, shape in batch["shapes"].items():
            show(Text(f"{name} {shape}"), console=console)
        for example in batch["examples"]:
            show("", Text(counts_line(example)), *example_lines(example), console=console)
            for stream in example["streams"]:
                title = Text(stream["name"], style="bold")
                show("", title, token_table(stream["tokens"], console.width), console=console)


def print_statistics(found: Inspected, console: Console | None = None) -> None:
    """Print the ledger, and the statistics of each split."""
    console = console or terminal()
    if not found["statistics"]:
        return
    print_ledger(found["ledger"], console)
    for split, statistics in found["statistics"].items():
        heads, rows = lengths_table(statistics)
        notes = [*statistics_lines(statistics), *_list_lines(statistics)]
        page: list[RenderableType] = table_page(f"{split} text", heads, rows, notes, console.width)
        show(*page, console=console)


def objective_line(found: Inspected) -> str:
    """Return the objective with its options: `SpanCorruption(noise_density=0.15, …)`."""
    objective = found["objective"]
    options = ", ".join(f"{name}={value}" for name, value in objective["options"].items())
    return f"{objective['name']}({options})"


def counts_line(example: Mapping[str, Any]) -> str:
    """Return how many tokens of an example have each role, and how many targets there are."""
    counts = example["counts"]
    roles = ", ".join(f"{count} {role}" for role, count in counts.items() if role != "targets")
    return f"{roles}; {counts['targets']} targets"


def lengths_table(statistics: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return heads and rows of the table of lengths."""
    heads = ("tokens of", "number", "mean", "min", "p10", "median", "p90", "max")
    rows = []
    for name, lengths in statistics["lengths"].items():
        quantiles = [f"{value:,}" for value in lengths["quantiles"].values()]
        rows.append((name, f"{lengths['number']:,}", f"{lengths['mean']:,.1f}", *quantiles))
    return heads, rows


def statistics_lines(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on words, the vocabulary, unknown text and repeated documents."""
    per_word = statistics["tokens_per_word"]
    yield f"tokens per word, between white space: {ABSENT if per_word is None else f'{per_word:.2f}'}"
    vocabulary = statistics["vocabulary"]
    yield f"of {vocabulary['size']:,} tokens of the vocabulary {vocabulary['used']:,} occur"
    unknown = statistics["unknown"]
    yield f"unknown tokens: {unknown['tokens']:,} ({unknown['share']:.2%})"
    repeated = statistics["repeated"]
    share = f"{repeated['documents']:,} ({repeated['share']:.2%})"
    yield f"documents with the text of an earlier one: {share}"


def _list_lines(statistics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lists of frequent tokens, unknown texts and repeated documents that are not empty."""
    frequent = [f"{visible(each['text'])} {each['share']:.1%}" for each in statistics["frequent"]]
    repeated = statistics["repeated"]["texts"]
    lists = {
        "most frequent": frequent,
        "unknown": [visible(text) for text in statistics["unknown"]["texts"]],
        "repeated": [f"{each['times']} x {visible(each['text'])[:_EXCERPT]}" for each in repeated],
    }
    for name, items in lists.items():
        if items:
            yield f"{name}: {'  '.join(items)}"
