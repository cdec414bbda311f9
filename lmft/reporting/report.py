"""A run's report.html: one file that needs no network, no script and no font of its own."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from lmft.reporting.answers import printable, token_text
from lmft.reporting.tables import ABSENT, ledger_equations, ledger_table, score_table, training_line
from lmft.reporting.terminal import Row

Point = tuple[float, float]

MAX_POINTS = 4000  # of a line; more would be finer than a screen's pixels
WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 80, 16, 12, 44  # margins of a plot, where its axes are written


def write_report(
    path: Path,
    run_name: str,
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
) -> None:
    """Writes the report of a run to `path`.

    `metrics` is metrics.json's content, `rows` those of metrics.csv (numbers or their text; empty or None
    where absent), `samples` those of samples.jsonl. The command is read from command.txt beside `path`, if it
    is there.
    """
    train_loss, val_loss = _points(rows, "train/loss"), _points(rows, "val/loss")
    if metrics.get("before") and not any(step == 0 for step, _ in val_loss):
        val_loss = [*_finite([(0.0, metrics["before"]["loss"])]), *val_loss]
    command = path.with_name("command.txt")
    scores = _table(*score_table(metrics))
    sections = [
        ("Scores", scores and scores + _note("On the validation text, with the same targets every time.")),
        ("Loss", line_plot({"train": train_loss, "val": val_loss}, "nats per target", height=300)),
        ("Learning rate", line_plot({"rate": _points(rows, "lr")}, "learning rate", height=170, low=0)),
        ("Speed", line_plot({"rate": _points(rows, "tokens_per_second")}, "tokens/s", height=170, low=0)),
        ("Text", _ledger(metrics.get("data") or {})),
        ("Probes", _probes(samples)),
        ("Environment", _pairs(metrics.get("environment") or {})),
        ("Command", _code(command.read_text(encoding="utf-8").strip()) if command.exists() else ""),
        ("Config", _folded("config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))),
    ]
    body = "".join(
        f"<section><h2>{title}</h2>{content}</section>\n" for title, content in sections if content
    )
    page = _PAGE.format(
        title=escape(run_name), style=_STYLE, status=escape(training_line(metrics)), sections=body
    )
    path.write_text(page, encoding="utf-8")


def line_plot(
    series: Mapping[str, Sequence[Point]], y_label: str, height: int, low: float | None = None
) -> str:
    """An SVG of named series over optimizer steps, or the empty string if none has a point.

    A series' name is its CSS class; `val`, of which there are few, also gets a dot at each point. The upward
    axis begins at `low`, or where the series are lowest.
    """
    drawn = {name: _thinned(points) for name, points in series.items() if points}
    if not drawn:
        return ""
    xs = [x for points in drawn.values() for x, _ in points]
    ys = [y for points in drawn.values() for _, y in points]
    x_ticks = ticks(0, max(xs), 6)
    y_ticks = ticks(min(ys) if low is None else low, max(ys), 5 if height > 200 else 3)
    x_end = max(xs) or 1

    def place(x: float, y: float) -> Point:
        across = x / x_end
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1 - up) * (height - TOP - BOTTOM)

    marks = [*_grid(x_ticks, y_ticks, x_end, place), *_axis_labels(y_label, height)]
    for name, points in drawn.items():
        places = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        marks.append(f'<polyline class="{name}" points="{places}"/>')
        if name == "val" or len(points) == 1:
            marks += [_dot(name, point, place(*point)) for point in points]
    svg = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{y_label}">{"".join(marks)}</svg>'
    return f'<figure>{_legend(list(drawn))}<div class="wide">{svg}</div></figure>'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart), about that many, from at most `low` to at least
    `high`.
    """
    if low == high:
        low, high = low - (abs(low) or 1) / 10, high + (abs(high) or 1) / 10
    rough = (high - low) / about
    unit = 10.0 ** math.floor(math.log10(rough))
    apart = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [float(f"{index * apart:.12g}") for index in range(first, last + 1)]


def _points(rows: Iterable[Mapping[str, Any]], column: str) -> list[Point]:
    cells = ((row.get("step"), row.get(column)) for row in rows)
    return _finite(
        [
            (float(step), float(cell))
            for step, cell in cells
            if step not in ("", None) and cell not in ("", None)
        ]
    )


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    return points[:: math.ceil(len(points) / MAX_POINTS)]


def _grid(x_ticks: list[float], y_ticks: list[float], x_end: float, place: Any) -> Iterable[str]:
    for y in y_ticks:
        left, at = place(0, y)
        yield f'<line class="grid" x1="{left:.1f}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_number(y)}</text>'
    for x in x_ticks:
        if x <= x_end and x.is_integer():
            at, bottom = place(x, y_ticks[0])
            yield f'<line class="tick" x1="{at:.1f}" x2="{at:.1f}" y1="{bottom:.1f}" y2="{bottom + 5:.1f}"/>'
            yield f'<text x="{at:.1f}" y="{bottom + 19:.1f}" text-anchor="middle">{_number(x)}</text>'


def _axis_labels(y_label: str, height: int) -> list[str]:
    across, down = (LEFT + WIDTH - RIGHT) / 2, TOP + (height - TOP - BOTTOM) / 2
    return [
        f'<text x="{across}" y="{height - 6}" text-anchor="middle">optimizer steps</text>',
        f'<text transform="translate(13 {down}) rotate(-90)" text-anchor="middle">{y_label}</text>',
    ]


def _dot(name: str, point: Point, at: Point) -> str:
    title = f"step {point[0]:,.0f}: {point[1]:.5g}"
    return f'<circle class="{name}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3.5"><title>{title}</title></circle>'


def _legend(names: Sequence[str]) -> str:
    if len(names) == 1:
        return ""
    labels = {"train": "training", "val": "validation"}
    return (
        "<figcaption>"
        + "".join(f'<span class="{name}">{labels[name]}</span>' for name in names)
        + "</figcaption>"
    )


def _number(value: float) -> str:
    """A tick's label: `2.5M`, `12,500`, `0.25`, `2e-5`."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}".replace("e-0", "e-")


def _table(heads: Row, rows: Iterable[Row]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'
        if body
        else ""
    )


def _ledger(ledger: Mapping[str, Any]) -> str:
    return _table(*ledger_table(ledger)) + "".join(map(_note, ledger_equations(ledger)))


def _probes(samples: Sequence[Mapping[str, Any]]) -> str:
    """For each prompt, its answers: a row for each time it was asked."""
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_prompt.setdefault(sample["prompt"], []).append(sample)
    parts = []
    for prompt, asked in by_prompt.items():
        parts.append(f"<h3>{_lines(prompt)}</h3>")
        parts.append(_fills(asked) if "fills" in asked[0] else _texts(asked))
    return "".join(parts)


def _fills(asked: Sequence[Mapping[str, Any]]) -> str:
    """A table for each mask, the best fill first."""
    parts = []
    num_masks = max(len(sample["fills"]) for sample in asked)
    for mask in range(num_masks):
        parts.append(_note(f"mask {mask + 1} of {num_masks}") if num_masks > 1 else "")
        rows = "".join(_row(sample, map(_fill, sample["fills"][mask])) for sample in asked)
        parts.append(f'<div class="wide tall"><table class="fills"><tbody>{rows}</tbody></table></div>')
    return "".join(parts)


def _fill(fill: Mapping[str, Any]) -> str:
    share = f"{fill['probability']:.1%}"
    return f'<td style="--share:{share}">{escape(token_text(fill["token"]))}<small>{share}</small></td>'


def _texts(asked: Sequence[Mapping[str, Any]]) -> str:
    """A column for each text by its name: greedy, sampled."""
    names = list(dict.fromkeys(name for sample in asked for name in sample["texts"]))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
    cells = ([f"<td>{_lines(sample['texts'].get(name, ABSENT))}</td>" for name in names] for sample in asked)
    rows = "".join(map(_row, asked, cells))
    table = f'<table class="texts"><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table>'
    return f'<div class="wide tall">{table}</div>'


def _row(sample: Mapping[str, Any], cells: Iterable[str]) -> str:
    when = f"step {sample['step']:,}" if sample["stage"] == "validation" else sample["stage"]
    return f"<tr><th>{escape(when)}</th>{''.join(cells)}</tr>\n"


def _lines(text: str) -> str:
    """A text that keeps its line ends."""
    shown = printable(text, newline="\n")
    return f'<span class="lines">{escape(shown)}</span>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{escape(str(key))}</th><td>{escape(str(value))}</td></tr>" for key, value in values.items()
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>' if rows else ""


def _note(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def _code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{_code(text)}</details>"


_STYLE = """
:root { color-scheme: light dark; --back: #fcfbf9; --ink: #23262b; --faint: #6b7079; --rule: #e2dfd9; --wash: #f3f1ec;
  --train: #6f93bd; --val: #c4622d; --share-ink: #dbe6f2; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --ink: #dcdfe4; --faint: #949aa5; --rule: #2c3037;
  --wash: #1e2126; --train: #6d94c4; --val: #e8945c; --share-ink: #273a52; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 50rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.1rem; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1rem; font-weight: 500; }
p { margin: .4rem 0; color: var(--faint); font-size: .9rem; }
.wide { overflow-x: auto; }
.tall { max-height: 24rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { color: var(--faint); font-weight: 500; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
.fills td { width: 18%; padding-left: .5rem; text-align: left;
  background: linear-gradient(to right, var(--share-ink) var(--share), transparent var(--share)); }
.fills small { float: right; margin-left: .6rem; color: var(--faint); line-height: 1.7; }
.lines { white-space: pre-wrap; overflow-wrap: anywhere; }
.texts th, .texts td { vertical-align: top; text-align: left; }
.texts td { min-width: 14rem; }
.pairs { width: auto; }
.pairs td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
figure { margin: 0; }
figcaption { display: flex; gap: 1.25rem; color: var(--faint); font-size: .9rem; }
figcaption span::before { content: ""; display: inline-block; width: 1.1rem; height: 3px; margin-right: .45rem;
  vertical-align: middle; background: var(--train); }
figcaption .val::before { background: var(--val); }
svg { display: block; width: 100%; min-width: 34rem; }
svg text { fill: var(--faint); font-size: 12px; }
.grid { stroke: var(--rule); }
.tick { stroke: var(--faint); }
polyline { fill: none; stroke: var(--train); stroke-width: 1.3; stroke-linejoin: round; }
polyline.val { stroke: var(--val); stroke-width: 2; }
circle { fill: var(--train); }
circle.val { fill: var(--val); }
pre { margin: .5rem 0; padding: .8rem 1rem; border-radius: 6px; background: var(--wash); font-size: .82rem;
  overflow-x: auto; }
summary { cursor: pointer; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{title}</h1><p>{status}</p></header>
{sections}</body>
</html>
"""
