"""Read the files of a run's folder that grow while it trains."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_rows(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.csv as numbers, without empty cells; none if there is no file.

    A last line that is not yet complete is left out.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [numbers for row in rows if (numbers := _numbers(row))]


def _numbers(row: Mapping[str | None, Any]) -> dict[str, float]:
    numbers = {}
    for name, text in row.items():
        if name is None or not isinstance(text, str):
            continue
        try:
            numbers[name] = float(text)
        except ValueError:
            continue
    return numbers if "step" in numbers else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a samples.jsonl; none if there is no file.

    A last line that is not yet complete is left out.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]
