"""The page of `lmft inspect`: examples one at a time, statistics of the text, the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lmft.reporting.axes import Axis
from lmft.reporting.charts import Spec, histogram
from lmft.reporting.inspection import (
    Inspected,
    counts_line,
    lengths_table,
    objective_line,
    statistics_lines,
)
from lmft.reporting.page import fill_page
from lmft.reporting.tables import Table, ledger_equations, ledger_table
from lmft.reporting.tokens import drawn, legend_of, places_line, visible

_LENGTH = Axis("low", "tokens", format=",", ticks=",")
_COUNT = Axis("count", "number", format=",", ticks=",")


def inspection_page(found: Inspected) -> str:
    """Return the page as HTML that needs no network."""
    examples = _examples(found["batches"])
    charts: dict[str, Spec] = {}
    splits = [_split(name, of, charts) for name, of in found["statistics"].items()]
    ledger = found["ledger"]
    return fill_page(
        "inspect.html.jinja",
        f"What {found['model']} reads and predicts",
        charts,
        {},
        subtitle=objective_line(found),
        examples=examples,
        num_epochs=len({example["epoch"] for example in examples}),
        roles=legend_of(example["drawn"] for example in examples),
        splits=splits,
        ledger=ledger_table(ledger) if ledger else Table((), []),
        equations=ledger_equations(ledger),
    )


def _examples(batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples as the template takes them, with numbers that begin again in each epoch."""
    examples = []
    num_of_epoch: dict[int, int] = {}
    for batch in batches:
        for example in batch["examples"]:
            epoch = batch["epoch"]
            place = num_of_epoch.get(epoch, 0)
            num_of_epoch[epoch] = place + 1
            examples.append(
                {
                    "place": place,
                    "epoch": epoch,
                    "name": f"{batch['split']} example {example['number']:,}",
                    "counts": counts_line(example),
                    "places": places_line(example),
                    "batch": batch_line(batch),
                    "drawn": drawn(example),
                }
            )
    return examples


def batch_line(batch: Mapping[str, Any]) -> str:
    """Return a batch's place in its epoch and the shapes of its tensors."""
    shapes = ", ".join(f"{name} {shape}" for name, shape in batch["shapes"].items())
    if batch["position"] is None:
        return shapes
    return f"micro-batch {batch['position']}: {shapes}"


def _split(name: str, statistics: Mapping[str, Any], charts: dict[str, Spec]) -> dict[str, Any]:
    """Return a split's statistics as the template takes them; its histograms are added to `charts`."""
    placed = []
    for kind, lengths in statistics["lengths"].items():
        key = f"{name} {kind}"
        charts[key] = histogram(lengths["histogram"], replace(_LENGTH, log=lengths["log"]), _COUNT)
        placed.append((key, f"lengths of {kind}"))
    return {
        "name": name,
        "lengths": Table(*lengths_table(statistics)),
        "charts": placed,
        "lines": list(statistics_lines(statistics)),
        "lists": list(_lists(statistics)),
    }


def _lists(statistics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tables of frequent tokens, unknown texts and repeated documents that are not empty."""
    frequent = [
        (visible(each["text"]), str(each["id"]), f"{each['share']:.2%}")
        for each in statistics["frequent"]
    ]
    unknown = [(visible(text),) for text in statistics["unknown"]["texts"]]
    repeated = [(each["text"], f"{each['times']:,}") for each in statistics["repeated"]["texts"]]
    tables = [
        ("most frequent tokens", Table(("token", "id", "share"), frequent)),
        ("unknown to the vocabulary", Table(("text",), unknown)),
        ("repeated documents", Table(("text", "times"), repeated)),
    ]
    return [{"title": title, "table": table} for title, table in tables if table.rows]
