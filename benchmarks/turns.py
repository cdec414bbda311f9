"""Run two or more sides in turns (A B A B …) and compare their medians, so that a machine's drift hits all sides."""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable

Side = Callable[[], dict[str, float]]


def in_turns(sides: dict[str, Side], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Run each side once per round, and print every result at once."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            results[name].append(side())
            print(f"round {number + 1}  {name:24} {json.dumps(results[name][-1])}", flush=True)
    return results


def compare(results: dict[str, list[dict[str, float]]], figure: str, ours: str) -> None:
    """Print the median and range of each side, and the ratio of `ours` to each other side, also by rounds."""
    values = {name: [row[figure] for row in rows] for name, rows in results.items()}
    for name, row in values.items():
        print(f"{figure:16} {name:24} median {statistics.median(row):,.4g}  ({min(row):,.4g} to {max(row):,.4g})")
    for name in values.keys() - {ours}:
        pairs = [a / b for a, b in zip(values[ours], values[name], strict=True)]
        ratio = statistics.median(values[ours]) / statistics.median(values[name])
        print(f"{figure:16} {ours} / {name} = {ratio:.2f}  (pairs {min(pairs):.2f} to {max(pairs):.2f})")


def last_json(command: list[str]) -> dict[str, float]:
    """Run a command and return the JSON object on its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
