"""The table of a linear probe."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmft.reporting.terminal import show, table_page, terminal

_HEADS = ("", "accuracy", "95% interval", "macro F1", "95% interval")
_STAGES = (
    ("most frequent class", "majority"),
    ("before training", "before"),
    ("after training", "after"),
)


def print_probe(result: Mapping[str, Any]) -> None:
    """Print the scores before and after, and what they were measured on."""
    rows = []
    for title, stage in _STAGES:
        if stage not in result:
            continue
        of_stage = result[stage]
        name = title if stage == "majority" or "before" in result else "this model"
        rows.append(
            (
                name,
                f"{of_stage['accuracy']:.1%}",
                _interval(of_stage.get("accuracy_interval")),
                f"{of_stage['macro_f1']:.3f}",
                _interval(of_stage.get("macro_f1_interval"), "{:.3f}"),
            )
        )
    console = terminal()
    title = f"linear probe of '{result['label']}', {result['model']}"
    show(*table_page(title, _HEADS, rows, _notes(result), console.width), console=console)


def _interval(bounds: Sequence[float] | None, form: str = "{:.1%}") -> str:
    if bounds is None:
        return "-"
    return f"{form.format(bounds[0])} to {form.format(bounds[1])}"


def _notes(result: Mapping[str, Any]) -> list[str]:
    """Return what is to be told below the table."""
    rows = result["rows"]
    classes = ", ".join(f"{name}: {count:,}" for name, count in list(result["classes"].items())[:10])
    if len(result["classes"]) > 10:
        classes += ", …"
    notes = [
        f"logistic regression on {result['pooling']} hidden states of layer {result['layer']}: "
        f"trained on {rows['train']:,} rows, measured on {rows['held_out']:,} held out ({classes})"
    ]
    if "change" in result:
        notes.append(_sentence(result["change"]))
    if result["texts_cut"]:
        notes.append(f"{result['texts_cut']:,} texts are longer than the window and were cut: window=")
    if result["left_out"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in result["left_out"].items())
        notes.append(f"rows left out, and texts cleaned: {reasons}")
    return notes


def _sentence(change: Mapping[str, Any]) -> str:
    low, high = change["accuracy_interval"]
    points = f"{100 * change['accuracy']:+.1f} points of accuracy"
    between = f"95% of bootstrap samples from {100 * low:+.1f} to {100 * high:+.1f}"
    if low > 0:
        return f"training helped: {points}, {between}"
    if high < 0:
        return f"training harmed: {points}, {between}"
    return f"no difference that these rows can show: {points}, {between}"
