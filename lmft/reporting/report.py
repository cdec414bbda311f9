"""A run's report: one page that needs no network, made from what the run's folder tells."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import yaml

from lmft.reporting.answers import printable, token_text
from lmft.reporting.charts import Spec
from lmft.reporting.facts import counted
from lmft.reporting.gains import gains
from lmft.reporting.page import fill_page
from lmft.reporting.progress_plots import progress_plots
from lmft.reporting.tables import (
    ABSENT,
    ledger_equations,
    ledger_table,
    measured_on,
    num_epochs,
    score_table,
    training_summary,
)
from lmft.reporting.tokens import drawn

_MOST_CHARACTERS = 300_000  # of answers to probes: more of them make a page slow
_MOST_TOKENS = 500  # of each row of the example
_FEWEST_STAGES = 3  # of a probe that are shown in any case: first, last and one between


@dataclass(frozen=True)
class Told:
    """Holds what a run's folder tells of it. What an older version did not write is empty."""

    name: str
    metrics: Mapping[str, Any]
    """Content of metrics.json; of a run that has not ended, as far as it is known."""
    config: Mapping[str, Any]
    """The run's config, without secrets."""
    rows: Sequence[Mapping[str, float]] = ()
    """Rows of metrics.csv, without empty cells."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Lines of samples.jsonl."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Content of facts.json."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Content of details.json."""
    example: Mapping[str, Any] = field(default_factory=dict)
    """Content of example.json."""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """Content of setup.json: versions, and what happened to the text."""
    lineage: Sequence[Mapping[str, Any]] = ()
    """The run that this one is a branch of, the run of which that is one, and so on."""
    command: str | None = None
    time: str = ""
    """When this was told."""


def report_page(told: Told) -> str:
    """Return report.html."""
    metrics = told.metrics
    ledger = metrics.get("data") or told.setup.get("data") or _ledger(told.facts)
    before = metrics.get("before") or {}
    progress = progress_plots(told.rows, before.get("loss"))
    changes = gains(told.details)
    charts = {**progress, **_placed(changes["texts"])}
    return fill_page(
        "report.html.jinja",
        told.name,
        charts,
        {"printable": partial(printable, newline="\n"), "token": token_text, "percent": "{:.1%}".format},
        status=metrics.get("status", "unknown"),
        summary=training_summary(metrics),
        time=told.time,
        error=metrics.get("error"),
        continues=metrics.get("command"),
        facts=dict(fact_lines(told.facts, told.config)),
        warnings=told.facts.get("warnings", []),
        measured_on=measured_on(metrics),
        scores=score_table({"data": ledger, **metrics}),
        progress=list(progress),
        gains=changes,
        ledger=ledger_table(ledger),
        equations=ledger_equations(ledger),
        probes=probes(told.samples),
        example=_example(told.example),
        absent=ABSENT,
        spikes=(metrics.get("train") or {}).get("spikes", []),
        lineage=told.lineage,
        command=told.command,
        environment=metrics.get("environment") or told.setup.get("environment") or {},
        config=yaml.safe_dump(dict(told.config), sort_keys=False, allow_unicode=True),
    )


def _placed(texts: Sequence[dict[str, Any]]) -> dict[str, Spec]:
    """Return name → plot of the plots of all texts; in the texts, the names replace the plots."""
    charts = {}
    for number, text in enumerate(texts):
        names = {}
        for heading, (plot, what) in text["plots"].items():
            name = f"text {number}: {heading}"
            charts[name] = plot
            names[heading] = (name, what)
        text["plots"] = names
    return charts


def _ledger(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return (facts.get("data") or {}).get("splits", {})


def fact_lines(facts: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and value of the facts at the top; a run without facts.json has those of its config."""
    if not facts:
        yield from _facts_of_config(config)
        return
    model = facts["model"]
    training = facts["training"]
    data = facts["data"]
    start = "new weights" if model["from_scratch"] else f"from {model['name']}"
    yield "model", f"{model['architecture']}, {start}"
    yield "parameters", _parameters(facts["parameters"])
    yield "data", f"{data['name'] or data['train']}: {data['tokens_per_epoch']:,} tokens in an epoch"
    yield "examples", f"{data['examples']} of {data['block_size']} tokens"
    yield "objective", training["objective"]
    yield "optimizer", training["optimizer"]
    if training["learning_rate"] is not None:
        schedule = f"{training['schedule']}, {training['warmup_steps']:,} steps of warm-up"
        yield "learning rate", f"{training['learning_rate']:g}, {schedule}"
    yield "optimizer step", counted(training["examples_per_step"], "example")
    if training["steps"] is not None:
        yield "length", f"{counted(training['steps'], 'step')}, {num_epochs(training['epochs'])}"
    devices = f"{training['num_devices']} × " if training["num_devices"] > 1 else ""
    yield "device", f"{devices}{training['device_name']}"
    yield "precision", str(training["precision"])


def _parameters(counts: Mapping[str, Any]) -> str:
    total = counts["total"]
    trained = counts["trained"]
    if trained == total:
        return f"{total:,}, all trained"
    return f"{total:,}, {trained:,} of them trained ({trained / total:.2%})"


def _facts_of_config(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model = config.get("model") or {}
    data = config.get("data") or {}
    values = {
        "model": model.get("name_or_path"),
        "data": data.get("path") or data.get("train"),
        "learning rate": (config.get("optimizer") or {}).get("lr"),
        "precision": (config.get("trainer") or {}).get("precision"),
    }
    yield from ((name, str(value)) for name, value in values.items() if value is not None)


def _example(example: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the example as it is drawn, the beginning of each of its rows; None if there is none."""
    if not example:
        return None
    shown = drawn(example)
    rows = [
        {**row, "tokens": row["tokens"][:_MOST_TOKENS], "num_tokens": len(row["tokens"])}
        for row in shown["rows"]
    ]
    return {**shown, "rows": rows, "most": _MOST_TOKENS, "is_cut": any(map(_is_long, rows))}


def _is_long(row: Mapping[str, Any]) -> bool:
    return row["num_tokens"] > _MOST_TOKENS


def probes(samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return for each prompt its samples in order, and the names of their texts; fills have none.

    No answer is cut. If all answers are too many for a page, those of evenly chosen steps are left, the
    first and the last among them; `num_asked` says how often the model was asked.
    """
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_prompt.setdefault(sample["prompt"], []).append(sample)
    share = _MOST_CHARACTERS / max(1, sum(len(str(sample)) for sample in samples))
    found = []
    for prompt, asked in by_prompt.items():
        shown = _evenly(asked, max(_FEWEST_STAGES, int(share * len(asked))))
        names = dict.fromkeys(name for sample in shown for name in sample.get("texts", ()))
        found.append(
            {"prompt": prompt, "samples": shown, "text_names": list(names), "num_asked": len(asked)}
        )
    return found


def _evenly(items: Sequence[Any], most: int) -> Sequence[Any]:
    """Return at most so many items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(number * (len(items) - 1) / (most - 1))] for number in range(most)]
