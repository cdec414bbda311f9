"""Print a run's text and scores as tables.

`score_table`, `ledger_table` and `training_line` also format these numbers for report.html and model
card.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console, RenderableType

from lmft.reporting.terminal import Row, show, table_page, terminal

ABSENT = "-"
_HEADS = {"exported": "this model"}


class Table(NamedTuple):
    """A table's cells as text."""

    heads: Row
    rows: list[Row]


# (label, key in the metrics, format of the value, function that formats the change from before to after)
SCORES = (
    ("loss (nats)", "loss", "{:.4f}", lambda before, after: f"{after - before:+.4f}"),
    ("perplexity", "perplexity", "{:,.2f}", lambda before, after: f"{after / before - 1:+.1%}"),
    ("accuracy", "accuracy", "{:.2%}", lambda before, after: f"{100 * (after - before):+.2f} points"),
    ("bits per byte", "bits_per_byte", "{:.4f}", lambda before, after: f"{after - before:+.4f}"),
    ("targets", "targets", "{:,}", lambda before, after: ""),
)

# (label, key in a split's ledger)
LEDGER = (
    ("documents", "documents"),
    ("documents removed", "documents_removed"),
    ("documents dropped", "documents_dropped"),
    ("documents cut", "documents_cut"),
    ("documents cleaned", "cleaned"),
    ("bytes of text", "bytes"),
    ("bytes unknown to the vocabulary", "unknown_bytes"),
    ("tokens", "tokens"),
    ("unknown tokens", "unknown_tokens"),
    ("examples", "examples"),
    ("tokens in examples", "tokens_in_examples"),
    ("tokens dropped", "tokens_dropped"),
    ("tokens repeated", "tokens_repeated"),
    ("padding", "padding"),
    ("examples in an epoch", "examples_per_epoch"),
    ("tokens per word", "tokens_per_word"),
    ("share of examples of one sentence", "one_sentence"),
)


def duration(seconds: float) -> str:
    """Return seconds as `0:07`, `1:03` or `2:01:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{minutes}:{rest:02}"


def score_table(
    metrics: Mapping[str, Any], stages: Sequence[str] = ("before", "after", "best")
) -> Table:
    """Return the table of scores: of each stage, of a unigram model if known, and the change.

    Rows without any score are left out. The change is from the first stage to the second; empty if one
    of them is absent or not finite.

    Args:
        metrics: content of metrics.json; each stage may be None. If all are, there are no rows.
        stages: keys of scores in `metrics`, which are also the columns' heads; `exported` is headed
            "this model".
    """
    scores = {_HEADS.get(stage, stage): metrics.get(stage) or {} for stage in stages}
    if not any(stage.get("loss") is not None for stage in scores.values()):
        return Table(("", *scores, "change"), [])
    if unigram := _unigram(metrics):
        scores["unigram"] = {"loss": math.log(unigram), "perplexity": unigram}
    rows = []
    for label, key, form, format_change in SCORES:
        values = [stage_scores.get(key) for stage_scores in scores.values()]
        if all(value is None for value in values):
            continue
        before, after = values[:2]
        change = ""
        if before is not None and after is not None and math.isfinite(before) and math.isfinite(after):
            change = format_change(before, after)
        rows.append((label, *(_score(value, form) for value in values), change))
    return Table(("", *scores, "change"), rows + _source_rows(scores))


def _source_rows(scores: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Return a row for the loss on each source of a mixture, with its change; none for one text."""
    stages = [stage.get("by_source") or {} for stage in scores.values()]
    rows = []
    for name in dict.fromkeys(name for stage in stages for name in stage):
        losses = [stage[name]["loss"] if name in stage else None for stage in stages]
        before, after = losses[:2]
        change = ""
        if before is not None and after is not None and math.isfinite(after - before):
            change = f"{after - before:+.4f}"
        rows.append((f"loss on {name}", *(_score(loss, "{:.4f}") for loss in losses), change))
    return rows


def _unigram(metrics: Mapping[str, Any]) -> float | None:
    """Return the perplexity of a unigram model: each token is predicted by its frequency in the text."""
    return metrics.get("data", {}).get("validation", {}).get("unigram_perplexity")


def ledger_table(ledger: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the table of what happened to the text: a column per split, a row per count."""
    rows = [
        (label, *(_count(split.get(key)) for split in ledger.values()))
        for label, key in LEDGER
        if any(_total(split.get(key)) for split in ledger.values())
    ]
    return Table(("", *ledger), rows)


def ledger_equations(ledger: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line per split that accounts for each of its tokens; it shows a difference if there is
    one.
    """
    lines = []
    for name, split in ledger.items():
        if not {"tokens", "tokens_in_examples", "tokens_dropped"} <= split.keys():
            continue
        tokens = split["tokens"]
        repeated = split.get("tokens_repeated") or 0
        used = split["tokens_in_examples"]
        dropped = split["tokens_dropped"]
        line = f"{name}: {tokens:,} tokens"
        if repeated:
            line += f" + {repeated:,} repeated"
        line += f" = {used:,} in examples + {dropped:,} dropped"
        if split.get("held_out"):
            share = f"{split['held_out']:.3g}"
            line += f" ({share} of the training documents, held out: data.validation_fraction)"
        if split.get("share"):
            passes = f"{split['passes_per_epoch']:.3g} passes an epoch"
            line += f"; {split['share']:.1%} of the examples, {passes}"
        difference = tokens + repeated - used - dropped
        if difference:
            line += f"; {difference:,} unaccounted for"
        lines.append(line)
    return lines


def training_line(metrics: Mapping[str, Any]) -> str:
    """Return a line on how the run went: status, steps, epochs, tokens, speed, memory, time if known."""
    status = metrics.get("status", "unknown")
    return ": ".join(filter(None, (status, training_summary(metrics))))


def training_summary(metrics: Mapping[str, Any]) -> str:
    """Return the line without the status; empty if nothing is known."""
    train = metrics.get("train") or {}
    epochs = metrics.get("epochs")
    num_steps = metrics.get("steps")
    parts = [
        ("{:,} optimizer step" + "s" * (num_steps != 1), num_steps),
        ("{:,} of them changed no weights", train.get("steps_skipped") or None),
        ("{}", None if epochs is None else num_epochs(epochs)),
        ("{:,} tokens", train.get("tokens")),
        ("{:,.0f} tokens/s", train.get("tokens_per_second")),
        ("peak memory {:.2f} GB", train.get("peak_memory_gb")),
    ]
    known = [form.format(value) for form, value in parts if value is not None]
    if parent := metrics.get("parent"):
        known.append("a branch of {name}, from its step {step:,} ({checksum})".format_map(parent))
    if exported := metrics.get("exported"):
        weights = f"model/ has the weights of step {exported['step']:,}"
        if exported["checkpoint"] == "best":
            weights += " (lowest validation loss)"
        elif str(exported["checkpoint"]).startswith("average:"):
            number = exported["checkpoint"].partition(":")[2]
            weights = f"model/ has the mean of the weights of {number} checkpoints"
        if exported.get("dtype") not in (None, "float32"):
            weights += f" in {exported['dtype']}"
        known.append(weights)
    if train.get("seconds") is not None:
        known.append(f"training took {duration(train['seconds'])}")
    return ", ".join(known)


def num_epochs(epochs: float) -> str:
    """Return a number of epochs in words, never in powers of ten.

    >>> num_epochs(1000), num_epochs(2.53125), num_epochs(1), num_epochs(0.0004)
    ('1,000 epochs', '2.53 epochs', '1 epoch', '0.0004 epochs')
    """
    rounded = round(epochs, 2) or float(f"{epochs:.1g}")
    if rounded == 1:
        return "1 epoch"
    if rounded < 0.01:
        return f"{rounded:f}".rstrip("0").rstrip(".") + " epochs"
    return f"{rounded:,.2f}".rstrip("0").rstrip(".") + " epochs"


def print_ledger(ledger: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Print what happened to the text of each split, and the sum that accounts for every token."""
    console = console or terminal()
    show(
        *table_page("text", *ledger_table(ledger), ledger_equations(ledger), console.width),
        console=console,
    )


def measured_on(metrics: Mapping[str, Any]) -> str:
    """Return on what the scores of a metrics.json were measured."""
    return str(metrics.get("measured_on") or "the validation text")


def print_scores(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table of scores, if there are any, and how the training went."""
    console = console or terminal()
    show(*_score_page(metrics, console.width), console=console)


def scores_text(metrics: Mapping[str, Any], width: int = 100) -> str:
    """Return what `print_scores` shows, as text of at most `width` columns."""
    shown = io.StringIO()
    console = Console(file=shown, width=width, color_system=None, force_jupyter=False)
    console.print(*_score_page(metrics, width), sep="\n")
    return shown.getvalue().rstrip()


def _score_page(metrics: Mapping[str, Any], width: int) -> list[RenderableType]:
    heads, rows = score_table(metrics)
    notes = [training_line(metrics)]
    if rows and _unigram(metrics):
        notes.insert(
            0, "unigram: each token predicted by its frequency in the training text, without context"
        )
    title = f"scores on {measured_on(metrics)}" if rows else "training"
    return table_page(title, heads, rows, notes, width)


def print_validation(scores: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the scores of one validation."""
    console = console or terminal()
    rows = [
        (label, _score(scores[key], form))
        for label, key, form, _ in SCORES
        if scores.get(key) is not None
    ]
    for name, own in scores.get("by_source", {}).items():
        rows.append((f"loss on {name}", _score(own["loss"], "{:.4f}")))
    title = f"scores on {measured_on({})}"
    show(*table_page(title, ("", "value"), rows, [], console.width), console=console)


def print_files(folder: Path, title: str, console: Console | None = None) -> None:
    """Print the files of a folder and their sizes."""
    console = console or terminal()
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    rows = [(name, f"{size:,}") for name, size in [*sizes.items(), ("together", sum(sizes.values()))]]
    show(*table_page(title, ("", "bytes"), rows, [], console.width), console=console)


def _score(value: float | None, form: str) -> str:
    if value is None:
        return ABSENT
    if abs(value) < 1e12:
        return form.format(value)
    # The perplexity of a model that has diverged can have dozens of digits, or be NaN.
    return f"{value:.3g}"


def _count(value: Any) -> str:
    """Return `1,234`; for counts by reason the sum and the reasons that occurred: `3 (2 blank, 1
    none)`.
    """
    if value is None:
        return ABSENT
    if not isinstance(value, Mapping):
        return f"{value:,}"
    text = f"{_total(value):,}"
    if reasons := ", ".join(f"{count:,} {reason}" for reason, count in value.items() if count):
        text += f" ({reasons})"
    return text


def _total(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(value.values())
    return value or 0
