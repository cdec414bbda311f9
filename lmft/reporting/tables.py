"""What a run shows: its config before it starts; its text and its scores.

`score_table` and `ledger_table` are the one place where these numbers become words; report.py and
model_card.py use them too.
"""

import io
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.text import Text
from rich.tree import Tree

from lmft.reporting.terminal import Row, show, table_page, terminal

ABSENT = "-"


class Table(NamedTuple):
    """A table's cells as text."""

    heads: Row
    rows: list[Row]


_SCORES_TITLE = "scores on the validation text"

# (label, key in the metrics, format of the value, how the change from before to after is said)
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
    ("documents dropped", "documents_dropped"),
    ("documents cut", "documents_cut"),
    ("documents cleaned", "cleaned"),
    ("bytes of text", "bytes"),
    ("tokens", "tokens"),
    ("examples", "examples"),
    ("tokens in examples", "tokens_in_examples"),
    ("tokens dropped", "tokens_dropped"),
    ("tokens repeated", "tokens_repeated"),
    ("padding", "padding"),
)


def duration(seconds: float) -> str:
    """Seconds as `0:07`, `1:03` or `2:01:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def score_table(metrics: Mapping[str, Any]) -> Table:
    """Heads and rows of the table of scores: before, after, best, the unigram model's if known, and the
    change.

    `metrics` is metrics.json's content; each of before, after and best may be None. A score that none of them
    has is left out. The change is from before to after, and empty where either is absent or not finite.
    Without any of the three there are no rows.
    """
    scores = {stage: metrics.get(stage) or {} for stage in ("before", "after", "best")}
    if not any(scores.values()):
        return Table(("", *scores, "change"), [])
    if unigram := _unigram(metrics):
        scores["unigram"] = {"loss": math.log(unigram), "perplexity": unigram}
    rows = []
    for label, key, form, change in SCORES:
        values = [of_stage.get(key) for of_stage in scores.values()]
        if all(value is None for value in values):
            continue
        before, after = values[:2]
        known = before is not None and after is not None and math.isfinite(before) and math.isfinite(after)
        cells = (_score(value, form) for value in values)
        rows.append((label, *cells, change(before, after) if known else ""))
    return Table(("", *scores, "change"), rows)


def _unigram(metrics: Mapping[str, Any]) -> float | None:
    """Perplexity of guessing by the training tokens' frequencies: what can be had without reading the
    context.
    """
    return metrics.get("data", {}).get("validation", {}).get("unigram_perplexity")


def ledger_table(ledger: Mapping[str, Mapping[str, Any]]) -> Table:
    """Heads and rows of the table of what happened to the text: a column a split, a row each thing that
    happened.
    """
    rows = [
        (label, *(_count(split.get(key)) for split in ledger.values()))
        for label, key in LEDGER
        if any(_total(split.get(key)) for split in ledger.values())
    ]
    return Table(("", *ledger), rows)


def ledger_equations(ledger: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line a split: where each of its tokens went; a difference is named, not hidden."""
    lines = []
    for name, split in ledger.items():
        if not {"tokens", "tokens_in_examples", "tokens_dropped"} <= split.keys():
            continue
        tokens, used, dropped = split["tokens"], split["tokens_in_examples"], split["tokens_dropped"]
        repeated = split.get("tokens_repeated") or 0
        more = f" + {repeated:,} repeated" if repeated else ""
        line = f"{name}: {tokens:,} tokens{more} = {used:,} in examples + {dropped:,} dropped"
        if split.get("held_out"):
            line += (
                f" ({split['held_out']:.3g} of the training documents, held out: data.validation_fraction)"
            )
        lost = tokens + repeated - used - dropped
        lines.append(f"{line}; {lost:,} unaccounted for" if lost else line)
    return lines


def training_line(metrics: Mapping[str, Any]) -> str:
    """One line on how the run went: status, steps, epochs, tokens, time, speed, memory; what is unknown is
    left out.
    """
    train = metrics.get("train") or {}
    parts = [
        ("{:,} optimizer steps", metrics.get("steps")),
        ("{:,.6g} epochs", None if metrics.get("epochs") is None else round(metrics["epochs"], 2)),
        ("{:,} tokens", train.get("tokens")),
        ("{:,.0f} tokens/s", train.get("tokens_per_second")),
        ("peak memory {:.2f} GB", train.get("peak_memory_gb")),
    ]
    known = [form.format(value) for form, value in parts if value is not None]
    if exported := metrics.get("exported"):
        best = ", the best by validation loss" if exported["checkpoint"] == "best" else ""
        known.append(f"model/ holds step {exported['step']:,}{best}")
    if train.get("seconds") is not None:
        known.append(f"{duration(train['seconds'])} of training")
    status = metrics.get("status", "unknown")
    return f"{status}: {', '.join(known)}" if known else status


def print_config(config: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the composed config as a tree: groups as branches, `key: value` as leaves; None and empty are
    left out.

    Secrets are the caller's to redact.
    """
    tree = Tree(Text("config", style="bold"), guide_style="dim")
    for key, value in config.items():
        if _is_empty(value):
            continue
        if isinstance(value, Mapping):
            branch = tree.add(Text(key, style="cyan"))
            for inner_key, inner in value.items():
                if not _is_empty(inner):
                    branch.add(_leaf(inner_key, inner))
        else:
            tree.add(_leaf(key, value))
    show(tree, "", console=console)


def print_ledger(ledger: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Prints what happened to the text of each split, and the sum that accounts for every token."""
    console = console or terminal()
    show(*table_page("text", *ledger_table(ledger), ledger_equations(ledger), console.width), console=console)


def print_scores(metrics: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the table at a run's end, and how the training went; if nothing was validated, this alone."""
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
        notes.insert(0, "unigram: guessing by the training tokens' frequencies, context unread")
    title = _SCORES_TITLE if rows else "training"
    return table_page(title, heads, rows, notes, width)


def print_validation(scores: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints the scores of one pass."""
    console = console or terminal()
    rows = [
        (label, _score(scores[key], form)) for label, key, form, _ in SCORES if scores.get(key) is not None
    ]
    show(*table_page(_SCORES_TITLE, ("", "value"), rows, [], console.width), console=console)


def _score(value: float | None, form: str) -> str:
    if value is None:
        return ABSENT
    # The perplexity of a model that has diverged can have dozens of digits.
    return form.format(value) if abs(value) < 1e12 else f"{value:.3g}"


def _count(value: Any) -> str:
    """`1,234`; of counts by reason, their sum and those reasons that occurred: `3 (2 blank, 1 none)`."""
    if value is None:
        return ABSENT
    if not isinstance(value, Mapping):
        return f"{value:,}"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in value.items() if count)
    return f"{_total(value):,}" + (f" ({reasons})" if reasons else "")


def _total(value: Any) -> int:
    return sum(value.values()) if isinstance(value, Mapping) else value or 0


def _leaf(key: str, value: Any) -> Text:
    return Text.assemble((f"{key}: ", "cyan"), _value(value))


def _is_empty(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_empty(inner) for inner in value.values())
    return value is None or value == []


def _value(value: Any) -> str:
    """As in YAML, lists and groups inside a group on one line."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key}: {_value(item)}" for key, item in value.items() if not _is_empty(item))
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{', '.join(repr(item) if isinstance(item, str) else _value(item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return text if text and text == text.strip() else repr(text)
