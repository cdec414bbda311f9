"""compare.html: several runs on one page that needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmft.reporting.page import fill_page


def write_page(
    path: Path,
    title: str,
    content: Mapping[str, Any],
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    rows: Sequence[Mapping[str, str]],
) -> None:
    """Write the page; its script draws the plots of `content`.

    Args:
        path: compare.html.
        title: the folder that is compared.
        content: that of compare.json, without infinity and NaN.
        curves: name of a run -> `val` and `train` -> points (step, nats per target).
        rows: the ranked table, column -> cell, with the same columns in each row.
    """
    page = fill_page(
        "compare.html.jinja",
        title,
        {},
        {},
        content=content,
        heads=list(rows[0]),
        rows=[list(row.values()) for row in rows],
        data={"groups": content["groups"], "options": content["options"], "curves": curves},
    )
    path.write_text(page, encoding="utf-8")
