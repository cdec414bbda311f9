"""The tables of docs/benchmarks.md, from the files of benchmarks/results/.

python -m docs.make.figures     writes them anew
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.machine import sentence
from lmft.system.files import read_json

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "benchmarks.md"
RESULTS = CHECKOUT / "benchmarks" / "results"
TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)
ROUNDS = 3  # of a figure, unless it says otherwise
ANSWERS = "answers right after each epoch"


def of_machines(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the figures of each machine: the content of its file."""
    return [read_json(path) for path in sorted(folder.glob("*.json"))]


def written(page: str, machines: list[dict[str, Any]]) -> str:
    """Return a page with the tables between its comments filled in."""
    return TABLE.sub(lambda match: f"{match[1]}\n{_tables(match[2], machines)}\n\n", page)


def _tables(name: str, machines: list[dict[str, Any]]) -> str:
    """Return a section's table of each machine, below a line that says which machine it is.

    Raises:
        ValueError: if no machine has figures of this section.
    """
    if name == ANSWERS:
        key = "answers_right_after_each_epoch"
        return _answers(next(each[key] for each in machines if key in each))
    found = "\n\n".join(_of_machine(name, machines))
    if not found:
        raise ValueError(f"no file in {RESULTS.name} has a section {name!r}")
    return found


def _of_machine(name: str, machines: list[dict[str, Any]]) -> Iterator[str]:
    for each in machines:
        rows = [row for row in each["results"] if row["section"] == name]
        if rows:
            yield f"Measured in {each['measured']} on {_machine(each['machine'])}:"
            yield "\n".join(["| figure | lmft | command |", "|---|---|---|", *map(_row, rows)])


def _machine(facts: dict[str, Any] | str) -> str:
    """Return which machine it was; of figures that were collected by hand, as it was written down."""
    return facts if isinstance(facts, str) else sentence(facts)


def _row(row: dict[str, Any]) -> str:
    mark = " †" if row.get("script") == "earlier" else ""
    results = "; ".join(map(_result, row["results"]))
    return f"| {row['figure']} | {results}{mark} | `{row['command']}` |"


def _result(result: dict[str, Any]) -> str:
    """A median with its range: 2.2× the Trainer (2.1 to 2.4), 0.07 s, perplexity 34."""
    unit = f" {result['unit']}" if result.get("unit") else ""
    about = f"{result['of']}: " if "of" in result else ""
    if "ratio" in result:
        shown = f"{result['ratio']}× {result['against']}"
    elif "value" in result:
        shown = f"{result['value']:,}{unit}"
    else:
        shown = f"{result['low']} to {result['high']}{unit}"
    in_brackets = []
    has_range = result.get("low") != result.get("high")
    if has_range and ("ratio" in result or "value" in result):
        in_brackets.append(f"{result['low']:,} to {result['high']:,}")
    if result["rounds"] != ROUNDS:
        in_brackets.append("one round" if result["rounds"] == 1 else f"{result['rounds']} rounds")
    return about + shown + (f" ({', '.join(in_brackets)})" if in_brackets else "")


def _answers(right: dict[str, list[int]]) -> str:
    epochs = [str(epoch) for epoch in range(len(next(iter(right.values()))))]
    rows = [f"| `{name}` | {' | '.join(map(str, counts))} |" for name, counts in right.items()]
    head = f"| `data.train_on` | {' | '.join(epochs)} |"
    return "\n".join([head, "|---" * (len(epochs) + 1) + "|", *rows])


def main() -> None:
    """Write the tables of the page."""
    PAGE.write_text(written(PAGE.read_text("utf-8"), of_machines()), "utf-8")


if __name__ == "__main__":
    main()
