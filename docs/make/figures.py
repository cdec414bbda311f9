"""The tables of docs/benchmarks.md, from benchmarks/results.json.

python -m docs.make.figures     writes them anew
"""

import json
import re
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs" / "benchmarks.md"
RESULTS = CHECKOUT / "benchmarks" / "results.json"
TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(?=<!-- end -->)", re.DOTALL)
ROUNDS = 3  # of a figure, unless it says otherwise
ANSWERS = "answers right after each epoch"


def written(page: str, results: dict[str, Any]) -> str:
    """Return a page with the tables between its comments filled in."""
    return TABLE.sub(lambda match: f"{match[1]}\n{_table(match[2], results)}\n\n", page)


def _table(name: str, results: dict[str, Any]) -> str:
    if name == ANSWERS:
        return _answers(results["answers_right_after_each_epoch"])
    found = [row for row in results["results"] if row["section"] == name]
    if not found:
        raise ValueError(f"{RESULTS.name} has no section {name!r}")
    return "\n".join(["| figure | lmft | command |", "|---|---|---|", *map(_row, found)])


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
        shown = f"{result['value']}{unit}"
    else:
        shown = f"{result['low']} to {result['high']}{unit}"
    in_brackets = []
    if "low" in result and ("ratio" in result or "value" in result):
        in_brackets.append(f"{result['low']} to {result['high']}")
    if result["rounds"] != ROUNDS:
        in_brackets.append(f"{result['rounds']} rounds")
    return about + shown + (f" ({', '.join(in_brackets)})" if in_brackets else "")


def _answers(right: dict[str, list[int]]) -> str:
    epochs = [str(epoch) for epoch in range(len(next(iter(right.values()))))]
    rows = [f"| `{name}` | {' | '.join(map(str, counts))} |" for name, counts in right.items()]
    head = f"| `data.train_on` | {' | '.join(epochs)} |"
    return "\n".join([head, "|---" * (len(epochs) + 1) + "|", *rows])


def main() -> None:
    """Write the tables of the page."""
    results = json.loads(RESULTS.read_text("utf-8"))
    PAGE.write_text(written(PAGE.read_text("utf-8"), results), "utf-8")


if __name__ == "__main__":
    main()
