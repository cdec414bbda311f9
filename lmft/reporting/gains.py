"""Did a training help, and where: the plots and tables of details.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmft.reporting.axes import Axis
from lmft.reporting.broken_down import cell, compared_cells
from lmft.reporting.charts import Spec, intervals, lines, scatter
from lmft.reporting.plotted_rows import Row
from lmft.reporting.tables import Table

_CHANGE = Axis("change", "change, nats per target (left of 0: better)", "+.4~f", "+~f")
_AFTER = Axis("after", "nats per target")
_LABEL = Axis("label", "range")
_MORE = (
    Axis("before", "before", ".4~f"),
    Axis("after", "after", ".4~f"),
    Axis("targets", "targets", ","),
)
_DOCUMENTS = Axis("documents", "documents", ",")  # known of document lengths alone
# Key of details.json -> heading, and what its ranges are of.
_BINS = {
    "by_frequency": ("By token frequency", "how often the target occurs in the training text"),
    "by_length": ("By document length", "tokens of the document"),
}


def gains(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report shows of details.json; nothing if there is none.

    Returns: `lines`, sentences; `table`, the losses of each text; `texts`, each with `name`, `plots`
    (heading → (plot, what it shows)) and `tables` (heading → table).
    """
    if not details:
        return {"lines": [], "table": None, "texts": []}
    texts = details["texts"]
    return {
        "lines": details["lines"],
        "table": _losses(details["overall"], texts),
        "texts": [_text(text, details) for text in texts],
    }


def _losses(overall: Mapping[str, Any], texts: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of losses, with the interval of their change."""
    rows = [("all validation text", *compared_cells(overall))]
    if len(texts) > 1:
        rows += [(text["name"], *compared_cells(text)) for text in texts]
    return Table(("loss, nats per target", "before", "after", "change", "95% interval", "targets"), rows)


def _text(text: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    plots: dict[str, tuple[Spec, str]] = {}
    for key, (heading, what) in _BINS.items():
        if text[key]:
            plots[heading] = (_bins(text[key]), what)
    if text["by_position"]:
        what = "tokens before the target that the model sees in its block"
        plots["By position"] = (_positions(text["by_position"], details), what)
    if points := text["points"]:
        plots["Documents"] = (_documents(points), "each point is a document")
    tables = {
        "Tokens that gained most": _tokens(text["tokens"]["gained"]),
        "Tokens that lost most": _tokens(text["tokens"]["lost"]),
        "Documents that gained most": _changed(text["documents_changed"]["gained"]),
        "Documents that lost most": _changed(text["documents_changed"]["lost"]),
    }
    return {
        "name": text["name"],
        "plots": plots,
        "tables": {heading: table for heading, table in tables.items() if table.rows},
    }


def _bins(bins: Sequence[Row]) -> Spec:
    """Return the plot of the change in each range; of the loss after, if there is none before."""
    more = (_DOCUMENTS,) if all(each["documents"] is not None for each in bins) else ()
    if any(each["change"] is not None for each in bins):
        return intervals(bins, _LABEL, _CHANGE, "low", "high", (*_MORE, *more))
    unbounded = [{**each, "low": None, "high": None} for each in bins]
    return intervals(unbounded, _LABEL, _AFTER, "low", "high", (*_MORE[2:], *more), has_zero=False)


def _positions(bins: Sequence[Row], details: Mapping[str, Any]) -> Spec:
    stages = {"before": "before", "after": f"after step {details['steps']['after']:,}"}
    rows = [
        {"from": each["from"], "loss": each[stage], "series": name}
        for stage, name in stages.items()
        for each in bins
        if each[stage] is not None
    ]
    names = tuple(dict.fromkeys(row["series"] for row in rows))
    position = Axis("from", "tokens before it", ",")
    return lines(rows, position, Axis("loss", "nats per target"), names, height=200)


def _documents(points: Mapping[str, Sequence[float]]) -> Spec:
    columns = zip(points["before"], points["after"], points["targets"], strict=True)
    rows = [
        {"before": before, "change": after - before, "targets": targets}
        for before, after, targets in columns
        if before is not None and after is not None
    ]
    change = Axis("change", "change (below 0: better)", "+.4~f", "+~f", zero=True)
    before = Axis("before", "before, nats per target")
    return scatter(rows, before, change, more=(Axis("targets", "targets", ","),), height=200)


def _tokens(tokens: Sequence[Mapping[str, Any]]) -> Table:
    heads = ("token", "in training", "targets", "before", "after", "nats in all")
    rows = [
        (
            _visible(each["text"]),
            cell(each["training_count"], "{:,}"),
            f"{each['targets']:,}",
            cell(each["before"], "{:.3f}"),
            cell(each["after"], "{:.3f}"),
            f"{each['nats']:+.1f}",
        )
        for each in tokens
    ]
    return Table(heads, rows)


def _changed(documents: Sequence[Mapping[str, Any]]) -> Table:
    heads = ("document", "tokens", "before", "after", "nats in all")
    rows = [
        (
            f"{each['number']}: {each['text']}",
            f"{each['tokens']:,}",
            cell(each["before"], "{:.3f}"),
            cell(each["after"], "{:.3f}"),
            f"{each['nats']:+.1f}",
        )
        for each in documents
    ]
    return Table(heads, rows)


def _visible(token: str) -> str:
    """Return a token's text with its white space written out."""
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "·"
